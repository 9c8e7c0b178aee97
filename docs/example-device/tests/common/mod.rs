//! `digest` processes, VMs around them, and a driver.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vfio_user_check::spawn::Server;
use vfio_user_check::vmm::{Backing, GuestMemory, Vm};

/// Guest memory.
const MEMORY: u64 = 64 << 20;
/// Where the table is.
pub(crate) const TABLE: u64 = 2 << 20;
/// The blocks that are read.
pub(crate) const SOURCE: u64 = 4 << 20;
/// How many there are: enough for milliseconds of work.
pub(crate) const BLOCKS: u32 = 14_000;

/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Offsets of registers, written down a second time.
pub(crate) mod reg {
    pub(crate) const STATUS: u64 = 0x04;
    pub(crate) const CAUSE: u64 = 0x08;
    pub(crate) const SOURCE: u64 = 0x10;
    pub(crate) const TABLE: u64 = 0x18;
    pub(crate) const BLOCKS: u64 = 0x20;
    pub(crate) const DONE: u64 = 0x24;
}

/// The program.
pub(crate) fn digest() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_digest"))
}

/// The program with the feature `fault-injection`.
fn faulty_digest() -> PathBuf {
    let path = std::env::var_os("DIGEST_FAULT_BIN").map_or_else(
        || {
            let profile = digest().parent().expect("the program is in a folder");
            let target = profile.parent().expect("a profile is in a folder");
            let name = profile.file_name().expect("a profile has a name");
            target.join("fault-injection").join(name).join("digest")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p pagetrail-example-device --features fault-injection --target-dir \
         target/fault-injection`, or set DIGEST_FAULT_BIN",
        path.display()
    );
    path
}

/// A running `digest`, and a folder for its socket.
pub(crate) struct Host {
    server: Server,
    socket: PathBuf,
    _folder: TempDir,
}

impl Host {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::run(digest(), options)
    }

    pub(crate) fn start_faulty(fault: &str) -> Self {
        Self::run(&faulty_digest(), &[&format!("--fault={fault}")])
    }

    fn run(program: &Path, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("digest.sock");
        let mut command = Command::new(program);
        command
            .arg(format!("--socket-path={}", socket.display()))
            .args(options);
        let log = folder.path().join("log");
        let server = Server::start(command, &log, std::slice::from_ref(&socket));
        Self {
            server: server.unwrap_or_else(|error| panic!("{error}")),
            socket,
            _folder: folder,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    pub(crate) fn stop(self) -> ExitStatus {
        self.server.stop().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A VM with the device, enabled.
    pub(crate) fn vm(&self, memory: &Arc<GuestMemory>) -> Vm {
        let mut vm = self.stopped_vm(memory);
        vm.enable_devices()
            .unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()));
        vm
    }

    /// A VM with the device as a destination has it: not enabled. The server may still be clearing up after its last client.
    pub(crate) fn stopped_vm(&self, memory: &Arc<GuestMemory>) -> Vm {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Vm::connect(std::slice::from_ref(&self.socket), Arc::clone(memory)) {
                Ok(vm) => return vm,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error:?}\n{}", self.log()),
            }
        }
    }
}

/// A guest's memory with something to read in it.
pub(crate) fn memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::pc(MEMORY, Backing::Sealed).expect("memory");
    memory.fill(42);
    memory
}

pub(crate) fn read(vm: &mut Vm, register: u64) -> u32 {
    vm.devices()[0].read32(0, register).expect("a register")
}

fn write(vm: &mut Vm, register: u64, value: u32) {
    vm.devices()[0].write32(0, register, value).expect("a register");
}

/// Begins a job over all blocks.
pub(crate) fn begin(vm: &mut Vm) {
    for (register, address) in [(reg::SOURCE, SOURCE), (reg::TABLE, TABLE)] {
        write(vm, register, address as u32);
        write(vm, register + 4, (address >> 32) as u32);
    }
    write(vm, reg::BLOCKS, BLOCKS);
}

/// Waits for the interrupt of the job's end, and acknowledges it. Returns how often it was signalled.
pub(crate) fn wait_for_end(vm: &mut Vm) -> u64 {
    let interrupts = vm.devices()[0].interrupts().expect("connected interrupts");
    let signals = interrupts.wait(0, PATIENCE);
    assert_eq!(
        (read(vm, reg::CAUSE), read(vm, reg::STATUS), read(vm, reg::DONE)),
        (1, 0, BLOCKS),
        "after {signals} signals"
    );
    write(vm, reg::CAUSE, 1);
    signals
}

/// The numbers of the blocks whose entry is not the one that job number `job` has to write.
pub(crate) fn wrong_entries(vm: &Vm, job: u32) -> Vec<u32> {
    let memory = vm.memory();
    let is_wrong = |block: &u32| {
        let (mut bytes, mut entry) = (vec![0; 4096], [0; 8]);
        memory
            .read(SOURCE + u64::from(*block) * 4096, &mut bytes)
            .expect("memory");
        memory
            .read(TABLE + u64::from(*block) * 8, &mut entry)
            .expect("memory");
        u64::from_le_bytes(entry) != u64::from(crc32c::crc32c(&bytes)) | u64::from(job) << 32
    };
    (0..BLOCKS).filter(is_wrong).collect()
}
