//! Where a VM can be: servers for its devices.

use std::path::{Path, PathBuf};

use super::failure::{Failure, Result};
use super::setup::Launcher;
use crate::qemu::DeviceSocket;
use crate::spawn::Server;

/// How devices are spread over server processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// One process has them all: they share an address space.
    One,
    /// Each has its own.
    Each,
}

/// Servers on one side of a migration.
pub(super) struct Place {
    name: String,
    folder: PathBuf,
    launcher: Launcher,
    processes: Processes,
    devices: Vec<DeviceSocket>,
    servers: Vec<Server>,
    starts: usize,
}

impl Place {
    /// Starts servers for `devices` devices, with their files in `folder`.
    pub(super) fn open(
        name: &str,
        folder: &Path,
        launcher: &Launcher,
        devices: usize,
        processes: Processes,
    ) -> Result<Self> {
        let sockets = (0..devices).map(|port| DeviceSocket {
            port,
            path: folder.join(format!("{name}{port}.sock")),
        });
        let mut place = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            launcher: launcher.clone(),
            processes,
            devices: sockets.collect(),
            servers: Vec::new(),
            starts: 0,
        };
        place.start()?;
        Ok(place)
    }

    /// The devices that QEMU finds here.
    pub(super) fn devices(&self) -> &[DeviceSocket] {
        &self.devices
    }

    /// The name that messages have for it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) -> Result {
        let sockets: Vec<PathBuf> = self.devices.iter().map(|device| device.path.clone()).collect();
        match self.processes {
            Processes::One if sockets.is_empty() => Ok(()),
            Processes::One => self.start_process(&sockets),
            Processes::Each => sockets
                .iter()
                .try_for_each(|socket| self.start_process(std::slice::from_ref(socket))),
        }
    }

    fn start_process(&mut self, sockets: &[PathBuf]) -> Result {
        let Some(command) = (self.launcher)(sockets, &self.folder)? else {
            return Err(Failure::Missing(
                "server that serves several devices in one process",
            ));
        };
        self.starts += 1;
        let log = self
            .folder
            .join(format!("{}-server{}.log", self.name, self.starts));
        self.servers.push(Server::start(command, &log, sockets)?);
        Ok(())
    }

    /// Kills all server processes with SIGKILL.
    pub(super) fn kill(&mut self) -> Result {
        for mut server in self.servers.drain(..) {
            server.kill()?;
        }
        Ok(())
    }

    /// Has all server processes stand still, connected.
    pub(super) fn pause(&self) -> Result {
        self.servers.iter().try_for_each(|server| Ok(server.pause()?))
    }

    /// Ends a pause.
    pub(super) fn go_on(&self) -> Result {
        self.servers.iter().try_for_each(|server| Ok(server.go_on()?))
    }

    /// Starts servers again where they were killed.
    pub(super) fn restart(&mut self) -> Result {
        self.kill()?;
        for device in &self.devices {
            // What a killed server leaves.
            match std::fs::remove_file(&device.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        self.start()
    }

    /// Fails when a server process has ended that nobody killed.
    pub(super) fn expect_alive(&mut self) -> Result {
        for server in &mut self.servers {
            if !server.is_running() {
                return Err(Failure::Broken(format!(
                    "a server of the {} has ended:\n{}",
                    self.name,
                    server.log()
                )));
            }
        }
        Ok(())
    }
}
