//! [`Machine`]: a QEMU with a device and memory, and without a processor.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pagetrail_rig_devices::MIB;
use serde_json::{Value, json};
use tempfile::TempDir;
use vfio_user_check::qemu::{GuestRam, Qmp};
use vfio_user_check::record::MigrateInfo;
use vfio_user_check::spawn::Server;

use super::qtest::{At, Qtest};

/// Bytes of memory.
pub(super) const MEMORY: u64 = 128 * MIB;

/// Where the device is on the root bus, and where its registers are to be.
const SLOT: u8 = 5;
const REGISTERS: u64 = 0xe000_0000;

/// Registers of configuration space (PCI Local Bus 3.0, section 6.1).
const COMMAND: u8 = 0x04;
const BAR_0: u8 = 0x10;
const MEMORY_AND_MASTER: u32 = 0b110;
const BAR_IS_64_BIT: u32 = 1 << 2;

/// Bytes in a second: as fast as can be.
pub(super) const FAST: u64 = 1 << 40;

const PATIENCE: Duration = Duration::from_mins(2);

/// How a VM begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It runs.
    Running,
    /// It waits for a migration.
    Waiting,
}

/// A VM whose processor is a test. It ends when this is dropped.
pub(super) struct Machine {
    process: Server,
    qmp: Qmp,
    processor: Qtest,
    ram: GuestRam,
    // Goes last: it has the sockets.
    folder: TempDir,
}

impl Machine {
    /// Starts a VM with the device that is served at `device`.
    pub(super) fn start(qemu: &Path, device: &Path, begin: Begin) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let sockets = [at("qmp"), at("qtest")];
        let firmware = at("firmware");
        // Nobody runs it, and QEMU wants some.
        fs::write(&firmware, vec![0; 64 << 10])?;
        let mut command = Command::new(qemu);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-accel",
                "qtest",
            ])
            .args(["-machine", "q35,memory-backend=ram", "-m"])
            .arg(format!("{}M", MEMORY / MIB))
            .arg("-object")
            .arg(format!(
                "memory-backend-memfd,id=ram,size={}M,share=on",
                MEMORY / MIB
            ))
            .arg("-bios")
            .arg(firmware)
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", sockets[0].display()))
            .arg("-qtest")
            .arg(format!("unix:{},server=on,wait=off", sockets[1].display()))
            .args(["-qtest-log", "none", "-device"])
            .arg(vfio_user_device(device).to_string());
        if begin == Begin::Waiting {
            command.args(["-incoming", "defer"]);
        }
        let process = Server::start(command, &at("log"), &sockets)?;
        let connect = || -> Result<_> {
            let qmp = Qmp::connect(&sockets[0])?;
            let processor = Qtest::connect(&sockets[1])?;
            Ok((qmp, processor, GuestRam::of_process(process.id())?))
        };
        let connected = connect().with_context(|| format!("QEMU's log:\n{}", process.log()));
        let (mut qmp, processor, ram) = connected?;
        // What the destination says of the state reaches the source.
        let return_path = json!({"capability": "return-path", "state": true});
        qmp.execute(
            "migrate-set-capabilities",
            &json!({"capabilities": [return_path]}),
        )?;
        // Emulated twice over, all takes its time.
        qmp.execute("migrate-set-parameters", &json!({"downtime-limit": 10_000}))?;
        let mut machine = Self {
            process,
            qmp,
            processor,
            ram,
            folder,
        };
        machine.limit_bandwidth(FAST)?;
        Ok(machine)
    }

    /// Does what firmware and a driver do.
    pub(super) fn enable_device(&mut self) -> Result<()> {
        let processor = &mut self.processor;
        let bar = processor.config_read(SLOT, BAR_0)?;
        processor.config_write(SLOT, BAR_0, REGISTERS as u32)?;
        if bar & BAR_IS_64_BIT != 0 {
            processor.config_write(SLOT, BAR_0 + 4, 0)?;
        }
        let command = processor.config_read(SLOT, COMMAND)? & 0xffff;
        processor.config_write(SLOT, COMMAND, command | MEMORY_AND_MASTER)
    }

    /// The device's registers. A destination has them where the source had them.
    pub(super) fn registers(&mut self) -> At<'_> {
        At(&mut self.processor, REGISTERS)
    }

    /// The VM's memory, from address 0 on.
    pub(super) fn memory(&self) -> Result<File> {
        Ok(self.ram.file()?)
    }

    /// Where a migration to this VM goes.
    fn incoming(&self) -> String {
        format!("unix:{}", self.folder.path().join("migration").display())
    }

    /// Begins to migrate to another VM.
    pub(super) fn begin_migration(&mut self, to: &mut Self) -> Result<()> {
        let uri = json!({"uri": to.incoming()});
        to.qmp.execute("migrate-incoming", &uri)?;
        self.qmp.execute("migrate", &uri)?;
        Ok(())
    }

    /// Calls a migration off.
    pub(super) fn cancel_migration(&mut self) -> Result<()> {
        self.qmp.execute("migrate_cancel", &json!({}))?;
        Ok(())
    }

    /// Waits for the end of a migration, which must be this one.
    pub(super) fn await_migration(&mut self, end: &str) -> Result<MigrateInfo> {
        self.await_info(end, |info| info.status.as_deref() == Some(end))
    }

    /// Waits until memory is being sent.
    pub(super) fn await_pages(&mut self) -> Result<MigrateInfo> {
        self.await_info("under way", |info| info.ram.is_some_and(|ram| ram.normal > 0))
    }

    /// Limits what a migration sends in a second, in bytes.
    pub(super) fn limit_bandwidth(&mut self, limit: u64) -> Result<()> {
        let limit = json!({"max-bandwidth": limit});
        self.qmp.execute("migrate-set-parameters", &limit)?;
        Ok(())
    }

    /// Kills it.
    pub(super) fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill()?)
    }

    fn await_info(&mut self, what: &str, is_there: impl Fn(&MigrateInfo) -> bool) -> Result<MigrateInfo> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = self.qmp.migrate_info()?;
            if is_there(&info) {
                return Ok(info);
            }
            if Instant::now() > deadline || matches!(info.status.as_deref(), Some("failed" | "completed")) {
                bail!(
                    "the migration is not {what}, but {:?}: {:?}",
                    info.status,
                    info.error_desc
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Adds what QEMU wrote to an error.
    pub(super) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("QEMU's log:\n{}", self.process.log()))
    }
}

fn vfio_user_device(socket: &Path) -> Value {
    json!({
        "driver": "vfio-user-pci",
        "id": "vf",
        "addr": format!("{SLOT:#x}"),
        "x-msg-timeout": 60_000,
        "socket": {"type": "unix", "path": socket},
    })
}
