//! [`Served`]: a server that runs, and its sockets.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;
use vfio_user_check::spawn::Server;

use crate::subject::Subject;

/// A server of devices. It is killed when this is dropped.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) sockets: Vec<PathBuf>,
    // Goes last: it has the sockets.
    _folder: TempDir,
}

impl Served {
    /// Serves the subject, with these options.
    pub(crate) fn vfio(subject: &Subject, options: &[&str]) -> Result<Self> {
        let folder = folder()?;
        let socket = folder.path().join("vf.sock");
        let mut command = vfio(subject, options);
        command.arg(format!("--socket-path={}", socket.display()));
        Self::start(command, vec![socket], folder)
    }

    /// Serves the subject and a `dma` device in one VM: the subject by the first socket.
    pub(crate) fn mixed(subject: &Subject) -> Result<Self> {
        Self::vm(&[subject])
    }

    /// Serves the subjects and, by the last socket, a `dma` device, in one VM.
    pub(crate) fn vm(subjects: &[&Subject]) -> Result<Self> {
        let folder = folder()?;
        let socket = |number: usize| folder.path().join(format!("{number}.sock"));
        let sockets: Vec<PathBuf> = (0..=subjects.len()).map(socket).collect();
        let mut text = String::from("[[vm]]\nname = 'mixed'\n");
        for (subject, socket) in subjects.iter().zip(&sockets) {
            writeln!(
                text,
                "[[vm.device]]\nkind = 'vfio'\npci = '{}'\ntracker = '{}'\nsocket-path = '{}'",
                subject.address,
                subject.tracker.option(),
                socket.display()
            )?;
        }
        writeln!(
            text,
            "[[vm.device]]\nkind = 'dma'\nsocket-path = '{}'",
            sockets[subjects.len()].display()
        )?;
        let file = folder.path().join("pagetrail.toml");
        fs::write(&file, text)?;
        let mut command = Command::new(&subjects[0].pagetrail);
        command.arg("serve").arg(file);
        Self::start(command, sockets, folder)
    }

    /// Serves by `command`, which is given the one socket's path.
    pub(crate) fn by(mut command: Command) -> Result<Self> {
        let folder = folder()?;
        let socket = folder.path().join("vf.sock");
        command.arg(format!("--socket-path={}", socket.display()));
        Self::start(command, vec![socket], folder)
    }

    fn start(command: Command, sockets: Vec<PathBuf>, folder: TempDir) -> Result<Self> {
        let server = Server::start(command, &folder.path().join("log"), &sockets)?;
        Ok(Self {
            server,
            sockets,
            _folder: folder,
        })
    }

    /// Adds the server's log to an error.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("the server's log:\n{}", self.server.log()))
    }
}

/// `pagetrail vfio` for the subject, without a socket.
pub(crate) fn vfio(subject: &Subject, options: &[&str]) -> Command {
    let mut command = Command::new(&subject.pagetrail);
    command
        .arg("vfio")
        .arg(format!("--pci={}", subject.address))
        .arg(format!("--tracker={}", subject.tracker.option()))
        .arg("--log=debug")
        .args(options);
    command
}

/// A folder that any user's server can make sockets in.
fn folder() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("no folder for sockets")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    Ok(folder)
}
