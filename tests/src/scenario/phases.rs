//! Points of a migration at which something can be done to it.

use std::time::{Duration, Instant};

use super::failure::Result;
use super::journey::{CRAWL, Journey, NARROW, SwitchOver, Terms, passes, reach, switch_over, until};
use super::stage::Stage;
use super::vm::Vm;
use crate::qemu::Machine;

/// How long the first event of a migration may take.
const EVENT_LIMIT: Duration = Duration::from_mins(1);

/// How long a QEMU that waits for a migration may take to notice that somebody came.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// A point of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// QEMU has said that it is setting it up.
    SetUp,
    /// Memory is passed over for the first time, slowly.
    FirstPass,
    /// Memory was passed over.
    LaterPass,
    /// The guest and its devices stand still, and nothing of the devices was sent yet.
    StandStill,
    /// The devices' state is on its way.
    Devices,
}

impl Phase {
    /// All of them, in order.
    pub(super) const ALL: [Self; 5] = [
        Self::SetUp,
        Self::FirstPass,
        Self::LaterPass,
        Self::StandStill,
        Self::Devices,
    ];

    /// Begins a migration to a QEMU that waits for it and lets it get to this point.
    ///
    /// Set-up and the sending of devices are short: they may be over when this returns.
    pub(super) fn reach(self, stage: &Stage<'_>, vm: &mut Vm, dest: Machine, what: &str) -> Result<Journey> {
        stage.recorder().phase(format!("{what}: {self:?}"));
        let journey = Journey::begin_to(stage, vm, dest, self.terms(what))?;
        match self {
            Self::SetUp => await_setup(vm)?,
            Self::FirstPass => {
                reach(stage, vm, "the first pass", |info| {
                    info.status.as_deref() == Some("active") && passes(info) == 1
                })?;
            }
            Self::LaterPass => {
                reach(stage, vm, "a second pass", |info| passes(info) >= 2)?;
            }
            Self::StandStill => await_standstill(stage, vm)?,
            Self::Devices => {
                await_standstill(stage, vm)?;
                switch_over(vm)?;
                until(stage, vm, "devices are sent", |info| {
                    info.status.as_deref() != Some("pre-switchover")
                })?;
            }
        }
        Ok(journey)
    }

    fn terms(self, what: &str) -> Terms {
        let terms = Terms::new(format!("{what}: {self:?}"));
        match self {
            Self::SetUp | Self::FirstPass => Terms {
                bandwidth: CRAWL,
                ..terms
            },
            Self::LaterPass => Terms {
                bandwidth: NARROW,
                downtime_limit: Duration::from_millis(10),
                ..terms
            },
            Self::StandStill | Self::Devices => Terms {
                switch_over: SwitchOver::WhenTold,
                ..terms
            },
        }
    }
}

/// Waits for the first that QEMU tells of a migration.
fn await_setup(vm: &mut Vm) -> Result {
    vm.machine()
        .qmp()
        .await_event("the migration is set up", EVENT_LIMIT, |event| {
            event.name == "MIGRATION" && event.data["status"] == "setup"
        })?;
    Ok(())
}

fn await_standstill(stage: &Stage<'_>, vm: &mut Vm) -> Result {
    reach(stage, vm, "everything stands still", |info| {
        info.status.as_deref() == Some("pre-switchover")
    })
}

/// What became of a QEMU that waits for a migration whose other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has ended without having run the guest.
    Ended,
    /// It had got everything, and has the guest standing still.
    Loaded,
    /// It waits: the other end was gone before it came.
    Waiting,
}

/// Waits until it is clear what becomes of the destination.
pub(super) fn fate(dest: &mut Machine) -> Result<Fate> {
    let began = Instant::now();
    loop {
        if !dest.is_running() {
            return Ok(Fate::Ended);
        }
        // It may end between two looks.
        if let Ok(info) = dest.qmp().migrate_info() {
            match info.status.as_deref() {
                Some("completed") => return Ok(Fate::Loaded),
                Some("setup") if began.elapsed() > ARRIVAL_LIMIT => return Ok(Fate::Waiting),
                _ => {}
            }
        }
        if began.elapsed() > EVENT_LIMIT {
            return Err(super::Failure::Broken(
                "the destination neither ends nor has the guest".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
