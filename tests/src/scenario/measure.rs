//! Migrations that are measured.

use std::time::Duration;

use super::Scenario;
use super::failure::Result;
use super::journey::{Terms, migrate};
use super::stage::{Plan, Side, Stage};
use super::vm::Rate;

/// QEMU's default for how long a guest may stand still.
const DOWNTIME_LIMIT: Duration = Duration::from_millis(300);

/// QEMU's default for the bytes that a migration takes in a second.
const BANDWIDTH: u64 = 128 << 20;

/// What a VM has and does while it migrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// No device.
    NoDevice,
    /// A device that does nothing.
    Idle,
    /// A device that writes pages as fast as it can.
    FlatOut,
}

impl Load {
    pub(super) fn scenario(self) -> &'static Scenario {
        match self {
            Self::NoDevice => &NO_DEVICE,
            Self::Idle => &IDLE,
            Self::FlatOut => &FLAT_OUT,
        }
    }
}

static NO_DEVICE: Scenario = Scenario {
    name: "measure-no-device",
    description: "A VM without a device migrates.",
    script: |stage| play(stage, Load::NoDevice),
};

static IDLE: Scenario = Scenario {
    name: "measure-idle",
    description: "A VM migrates while its device does nothing.",
    script: |stage| play(stage, Load::Idle),
};

static FLAT_OUT: Scenario = Scenario {
    name: "measure-flat-out",
    description: "A VM migrates while its device writes as fast as it can.",
    script: |stage| play(stage, Load::FlatOut),
};

fn play(stage: &mut Stage<'_>, load: Load) -> Result {
    let plan = Plan::devices(match load {
        Load::NoDevice => 0,
        Load::Idle | Load::FlatOut => 1,
    });
    let source = stage.place(Side::Source, &plan)?;
    let dest = stage.place(Side::Dest, &plan)?;
    let mut vm = stage.boot(&source, &plan)?;
    if load == Load::FlatOut {
        vm.start_generators(Rate::FlatOut)?;
        vm.await_progress()?;
    }
    let terms = Terms {
        bandwidth: BANDWIDTH,
        downtime_limit: DOWNTIME_LIMIT,
        ..Terms::new("there")
    };
    migrate(stage, &mut vm, &dest, &plan, terms)?;
    vm.check()?;
    vm.quit()
}
