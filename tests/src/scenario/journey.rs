//! A migration, step by step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failure::{Failure, Result};
use super::place::Place;
use super::stage::{Plan, Stage};
use super::vm::Vm;
use crate::qemu::{Machine, QemuError, Qmp};
use crate::record::MigrateInfo;

/// How long a migration may take.
const LIMIT: Duration = Duration::from_mins(4);

/// How long the destination may take when the source is done.
const DEST_LIMIT: Duration = Duration::from_mins(1);

/// Bytes per second that let pre-copy last until something else ends it.
pub(super) const CRAWL: u64 = 4 << 20;

/// Bytes per second that a busy generator is faster than.
pub(super) const NARROW: u64 = 48 << 20;

/// Bytes per second that never hold anything up.
pub(super) const WIDE: u64 = 16 << 30;

/// A downtime in which all of a busy device's memory can be sent, on a busy host.
const PATIENT: Duration = Duration::from_secs(5);

/// What carries the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A socket.
    Socket,
    /// A socket, and several more for pages and devices.
    Multifd,
    /// A file, written first and read then.
    File,
}

/// Whether the source waits when everything stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SwitchOver {
    AtOnce,
    WhenTold,
}

/// How a migration is to be.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) carrier: Carrier,
    /// Bytes per second.
    pub(super) bandwidth: u64,
    pub(super) downtime_limit: Duration,
    pub(super) switch_over: SwitchOver,
}

impl Terms {
    /// A migration that takes what bandwidth there is.
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            carrier: Carrier::Socket,
            bandwidth: WIDE,
            downtime_limit: PATIENT,
            switch_over: SwitchOver::AtOnce,
        }
    }

    fn capabilities(&self) -> Value {
        let state = |capability: &str, state: bool| json!({"capability": capability, "state": state});
        json!({"capabilities": [
            state("events", true),
            state("multifd", self.carrier == Carrier::Multifd),
            state("pause-before-switchover", self.switch_over == SwitchOver::WhenTold),
        ]})
    }

    fn parameters(&self) -> Value {
        json!({
            "max-bandwidth": self.bandwidth,
            "downtime-limit": self.downtime_limit.as_millis() as u64,
            "multifd-channels": 3,
        })
    }
}

/// A migration that was begun.
pub(super) struct Journey {
    terms: Terms,
    dest: Machine,
    uri: String,
}

impl Journey {
    /// Starts a destination and begins to migrate a VM to it.
    pub(super) fn begin(
        stage: &mut Stage<'_>,
        vm: &mut Vm,
        place: &Place,
        plan: &Plan,
        terms: Terms,
    ) -> Result<Self> {
        let dest = stage.await_migration(place, plan)?;
        Self::begin_to(stage, vm, dest, terms)
    }

    /// Begins to migrate a VM to a QEMU that waits for it.
    pub(super) fn begin_to(stage: &Stage<'_>, vm: &mut Vm, dest: Machine, terms: Terms) -> Result<Self> {
        let path = stage.path("stream");
        remove(&path)?;
        let uri = match terms.carrier {
            Carrier::File => format!("file:{}", path.display()),
            Carrier::Socket | Carrier::Multifd => format!("unix:{}", path.display()),
        };
        let mut journey = Self { terms, dest, uri };
        stage
            .recorder()
            .migration_begins(&journey.terms.name, Some(journey.terms.downtime_limit));
        journey.set_up(vm.machine().qmp())?;
        let Journey { dest, uri, terms } = &mut journey;
        prepare(dest.qmp(), terms)?;
        if terms.carrier != Carrier::File {
            dest.qmp().execute("migrate-incoming", &json!({"uri": uri}))?;
        }
        vm.machine().qmp().execute("migrate", &json!({"uri": uri}))?;
        Ok(journey)
    }

    fn set_up(&self, source: &mut Qmp) -> Result {
        prepare(source, &self.terms)
    }

    /// The QEMU at the other end.
    pub(super) fn dest(&mut self) -> &mut Machine {
        &mut self.dest
    }

    /// Puts another QEMU that waits in the place of one that has ended.
    pub(super) fn replace_dest(&mut self, mut dest: Machine) -> Result {
        prepare(dest.qmp(), &self.terms)?;
        self.dest = dest;
        Ok(())
    }

    /// Gives the destination up.
    pub(super) fn into_dest(self) -> Machine {
        self.dest
    }

    /// Waits until the migration has completed, compares both memories while both sides stand still, and lets the guest go on
    /// at the destination. Ends the source's QEMU.
    pub(super) fn arrive(mut self, stage: &Stage<'_>, vm: &mut Vm) -> Result {
        await_source(stage, vm)?;
        stage.recorder().migration_ends();
        self.load()?;
        self.compare(vm)?;
        stage.recorder().follow_memory(self.dest.ram().file()?)?;
        let source = vm.move_to(self.dest)?;
        Ok(source.quit()?)
    }

    /// Waits until the destination has everything.
    pub(super) fn load(&mut self) -> Result {
        let Journey { dest, uri, terms } = self;
        if terms.carrier == Carrier::File {
            dest.qmp().execute("migrate-incoming", &json!({"uri": uri}))?;
        }
        dest.await_run_state("paused", DEST_LIMIT)?;
        Ok(())
    }

    /// Compares the memory of both sides, of which neither runs.
    pub(super) fn compare(&self, vm: &mut Vm) -> Result {
        match vm.machine().ram().difference(self.dest.ram())? {
            None => Ok(()),
            Some(difference) => Err(Failure::Lost(difference)),
        }
    }

    /// The migration must have failed without the destination having run. Returns what the destination's QEMU wrote.
    pub(super) fn expect_failed(mut self, stage: &Stage<'_>, vm: &mut Vm) -> Result<String> {
        let info = until(stage, vm, "the migration fails", |_| false)?;
        stage.recorder().migration_ends();
        expect(&info, "failed")?;
        self.dest.await_end()?;
        let reason = info.error_desc.unwrap_or_default();
        Ok(format!("{reason}\n{}", self.dest.log()))
    }
}

/// Looks at the migration again and again until `reached`, or until it is over.
pub(super) fn until(
    stage: &Stage<'_>,
    vm: &mut Vm,
    what: &str,
    mut reached: impl FnMut(&MigrateInfo) -> bool,
) -> Result<MigrateInfo> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let info = vm.machine().qmp().migrate_info()?;
        stage.recorder().migrate_info(&info);
        if reached(&info) || is_over(&info) {
            return Ok(info);
        }
        if Instant::now() > deadline {
            return Err(QemuError::Late {
                what: format!("{what} ({info:?})"),
                limit: LIMIT,
            }
            .into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the migration, while it is still under way, is where `reached` says.
pub(super) fn reach(
    stage: &Stage<'_>,
    vm: &mut Vm,
    what: &str,
    mut reached: impl FnMut(&MigrateInfo) -> bool,
) -> Result<()> {
    let info = until(stage, vm, what, &mut reached)?;
    if reached(&info) {
        return Ok(());
    }
    expect(&info, "still under way")
}

/// Lets a migration that was held up take what bandwidth there is, and as much of the guest's time as it needs.
pub(super) fn hurry(vm: &mut Vm) -> Result {
    let parameters = json!({"max-bandwidth": WIDE, "downtime-limit": PATIENT.as_millis() as u64});
    vm.machine()
        .qmp()
        .execute("migrate-set-parameters", &parameters)?;
    Ok(())
}

/// Lets the source go on after everything stood still.
pub(super) fn switch_over(vm: &mut Vm) -> Result {
    vm.machine()
        .qmp()
        .execute("migrate-continue", &json!({"state": "pre-switchover"}))?;
    Ok(())
}

/// Lets a migration that was held up in any way end, if it has not ended already.
pub(super) fn go_on(vm: &mut Vm) -> Result {
    hurry(vm)?;
    let held = vm.machine().qmp().migrate_info()?.status.as_deref() == Some("pre-switchover");
    if held { switch_over(vm) } else { Ok(()) }
}

/// Calls the migration off and waits until the VM runs on at the source, or has gone after all.
pub(super) fn cancel(stage: &Stage<'_>, vm: &mut Vm) -> Result<MigrateInfo> {
    vm.machine().qmp().execute("migrate_cancel", &json!({}))?;
    let info = until(stage, vm, "the migration is called off", |_| false)?;
    stage.recorder().migration_ends();
    Ok(info)
}

/// Waits until the source is done.
pub(super) fn await_source(stage: &Stage<'_>, vm: &mut Vm) -> Result {
    let info = until(stage, vm, "the migration completes", |_| false)?;
    expect(&info, "completed")
}

/// Migrates a VM to another place, with a check of every byte of memory on the way.
pub(super) fn migrate(
    stage: &mut Stage<'_>,
    vm: &mut Vm,
    place: &Place,
    plan: &Plan,
    terms: Terms,
) -> Result {
    stage.recorder().phase(format!("migrate: {}", terms.name));
    Journey::begin(stage, vm, place, plan, terms)?.arrive(stage, vm)
}

/// Whether nothing more will happen.
pub(super) fn is_over(info: &MigrateInfo) -> bool {
    matches!(info.status.as_deref(), Some("completed" | "cancelled" | "failed"))
}

/// Fails unless a migration that is over has ended like this.
pub(super) fn expect(info: &MigrateInfo, wanted: &'static str) -> Result {
    let ending = info.status.clone().unwrap_or_default();
    if ending == wanted {
        return Ok(());
    }
    Err(Failure::Migration {
        ending,
        wanted,
        reason: info.error_desc.clone().unwrap_or_default(),
    })
}

/// Passes over memory that have begun.
pub(super) fn passes(info: &MigrateInfo) -> u64 {
    info.ram.map_or(0, |ram| ram.dirty_sync_count)
}

fn prepare(qmp: &mut Qmp, terms: &Terms) -> Result {
    qmp.execute("migrate-set-capabilities", &terms.capabilities())?;
    qmp.execute("migrate-set-parameters", &terms.parameters())?;
    Ok(())
}

fn remove(path: &PathBuf) -> Result {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
