//! What the end-to-end tests share: real `pagetrail` processes, and VMs on top of them.
//!
//! The binary is taken from `$PAGETRAIL_BIN`, else from beside the test's own binary. When it is missing a test fails and says
//! how to build it: a check that is skipped proves nothing.
#![allow(dead_code)] // Each test binary uses a part of it.

pub(crate) mod faulty;
pub(crate) mod raw;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vfio_user_check::client::{Client, Error};
use vfio_user_check::driver::{Dma, Generator};
use vfio_user_check::migrate::{Load, Options, Workload};
use vfio_user_check::spawn::Server;
use vfio_user_check::vmm::{Backing, Device, GuestMemory, Vm};

/// Guest memory of most tests.
pub(crate) const MEMORY: u64 = 64 << 20;

/// Where tests that need a buffer of their own put it; the generators' windows start at 1 MiB.
pub(crate) const BUFFER: u64 = 48 << 20;

/// The server's binary.
pub(crate) fn pagetrail() -> PathBuf {
    let path =
        std::env::var_os("PAGETRAIL_BIN").map_or_else(|| profile_folder().join("pagetrail"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p pagetrail`, or set PAGETRAIL_BIN",
        path.display()
    );
    path
}

/// The folder of the profile that this test was built in: `target/debug`.
pub(crate) fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let deps = test.parent().expect("the test is in a folder");
    deps.parent().expect("`deps` is in a folder").to_owned()
}

/// A running server process with `dma` devices of one VM, and a folder for its sockets.
pub(crate) struct Host {
    server: Server,
    sockets: Vec<PathBuf>,
    folder: TempDir,
}

impl Host {
    /// Starts a server with `devices` devices of one VM.
    pub(crate) fn start(devices: usize) -> Self {
        Self::with_workers(devices, 2)
    }

    /// Starts a server with `devices` devices of one VM, each of `workers` lanes.
    pub(crate) fn with_workers(devices: usize, workers: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let sockets: Vec<PathBuf> = (0..devices)
            .map(|index| folder.path().join(format!("{index}.sock")))
            .collect();
        let mut command = Command::new(pagetrail());
        if let [socket] = sockets.as_slice() {
            command
                .arg("dma")
                .arg(format!("--socket-path={}", socket.display()))
                .arg(format!("--workers={workers}"));
        } else {
            let config = folder.path().join("host.toml");
            std::fs::write(&config, vm_config(&sockets, workers)).expect("the configuration can be written");
            command.arg("serve").arg(config);
        }
        Self::run(command, sockets, folder)
    }

    /// Starts a given command that will listen at `sockets`.
    pub(crate) fn run(command: Command, sockets: Vec<PathBuf>, folder: TempDir) -> Self {
        let log = folder.path().join("log");
        let server = Server::start(command, &log, &sockets).unwrap_or_else(|error| panic!("{error}"));
        Self {
            server,
            sockets,
            folder,
        }
    }

    /// The devices' sockets.
    pub(crate) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// The socket of the first device.
    pub(crate) fn socket(&self) -> &Path {
        &self.sockets[0]
    }

    /// The process.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Ends the process and says how it ended.
    pub(crate) fn stop(self) -> std::process::ExitStatus {
        self.server.stop().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client of the first device, as soon as the server takes one: it may still be clearing up after the last, and a socket is there
    /// a moment before it listens.
    pub(crate) fn client(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Client::connect(self.socket()) {
                Ok(client) => return client,
                Err(Error::Connect { .. } | Error::Server { .. } | Error::Closed)
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("the server takes no client: {error}\n{}", self.server.log()),
            }
        }
    }

    /// A VM with all devices of the host around `memory`, enabled.
    pub(crate) fn vm(&self, memory: &Arc<GuestMemory>) -> Vm {
        drop(self.client());
        let mut vm = self.stopped_vm(memory);
        vm.enable_devices()
            .unwrap_or_else(|error| panic!("{error:?}\n{}", self.server.log()));
        vm
    }

    /// A VM with all devices, as a destination has them: not enabled.
    pub(crate) fn stopped_vm(&self, memory: &Arc<GuestMemory>) -> Vm {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Vm::connect(&self.sockets, Arc::clone(memory)) {
                Ok(vm) => return vm,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error:?}\n{}", self.server.log()),
            }
        }
    }

    /// The promise of every test with bad input: the process lives and serves the next client.
    pub(crate) fn assert_serves(&mut self) {
        assert!(
            self.server.is_running(),
            "the server has ended:\n{}",
            self.server.log()
        );
        let mut client = self.client();
        client.device_info().expect("the next client is served");
        let mut device = Device::new("next".to_owned(), client).expect("the next client is served");
        Dma::attach(&mut device).expect("the device is whole");
    }
}

/// The configuration of a host with one VM.
pub(crate) fn vm_config(sockets: &[PathBuf], workers: u32) -> String {
    use std::fmt::Write;
    let mut text = "[[vm]]\nname = \"vm0\"\n".to_owned();
    for socket in sockets {
        let path = socket.display();
        write!(
            text,
            "[[vm.device]]\nkind = \"dma\"\nsocket-path = \"{path}\"\nworkers = {workers}\n"
        )
        .expect("a string takes it");
    }
    text
}

/// A guest's memory with something in it.
pub(crate) fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::pc(MEMORY, Backing::Sealed).expect("memory");
    memory.fill(42);
    memory
}

/// Two hosts, and a VM on each: one enabled, one waiting.
pub(crate) struct Pair {
    pub(crate) source_host: Host,
    pub(crate) dest_host: Host,
    pub(crate) source: Vm,
    pub(crate) dest: Vm,
}

impl Pair {
    pub(crate) fn new(devices: usize) -> Self {
        Self::of(Host::start(devices), Host::start(devices))
    }

    pub(crate) fn of(source_host: Host, dest_host: Host) -> Self {
        let memory = memory();
        let source = source_host.vm(&memory);
        let dest = dest_host.stopped_vm(&memory.same_layout().expect("memory"));
        Self {
            source_host,
            dest_host,
            source,
            dest,
        }
    }
}

/// Options that keep a test short and make it hard.
pub(crate) fn options() -> Options {
    Options {
        max_passes: 4,
        threshold: 0,
        ..Options::default()
    }
}

/// A load of so many page writes per second of each device; 0 is flat out.
pub(crate) fn load(rate: u64) -> Load {
    Load {
        window_percent: 10,
        rate,
        seed: 11,
    }
}

/// Starts the generators.
pub(crate) fn start(vm: &mut Vm, rate: u64) -> Workload {
    Workload::start(vm, load(rate)).expect("the generators start")
}

/// The first device's driver.
pub(crate) fn dma(vm: &mut Vm) -> Dma<'_> {
    Dma::attach(&mut vm.devices()[0]).expect("the first device is a dma")
}

/// A generator over `pages` pages at 16 MiB, flat out.
pub(crate) fn generator(pages: u64) -> Generator {
    Generator {
        base: 16 << 20,
        pages,
        seed: 5,
        rate: 0,
        limit: 0,
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "in ten seconds this did not come about: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
