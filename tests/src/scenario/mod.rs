//! What is done to a VM with `dma` devices, and what must hold afterwards.
//!
//! [`ALL`] is the list. Each scenario starts servers and QEMU processes of its own ([`Setup`] says which), boots a real guest whose
//! agent drives the devices, does to it what its description says, and fails when a byte of memory, an interrupt or the
//! guest's own work is not what it must be. The tests and `vfio-user-check vm` run the same ones.
//!
//! After each migration, before the destination runs, all memory of both sides is compared byte by byte; later the agent checks
//! its work from inside, and the harness what the devices wrote from outside.

mod attach;
mod cancels;
mod events;
mod failure;
mod journey;
mod kills;
mod measure;
mod moves;
mod phases;
mod place;
mod refusals;
mod scene;
mod setup;
mod stage;
mod stalls;
mod vm;

pub use failure::{Failure, Result};
pub use measure::Load;
pub use setup::{Launcher, Setup, launcher};

use crate::record::Recorder;
use crate::report::vm::{Outcome, ScenarioReport};
use stage::Stage;

/// Something to do to a VM.
pub struct Scenario {
    /// Its name, to choose it by.
    pub name: &'static str,
    /// What is done, and what must hold.
    pub description: &'static str,
    script: fn(&mut Stage<'_>) -> Result,
}

/// Every scenario.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "attach-stock",
        description: "A guest in QEMU as it comes drives a device: rings, generator, interrupts, reset.",
        script: attach::stock,
    },
    Scenario {
        name: "attach",
        description: "A guest in QEMU with the series drives two devices of one process.",
        script: attach::ours,
    },
    Scenario {
        name: "unmigratable",
        description: "A device whose server offers no migration blocks the migration of its VM, with the reason.",
        script: attach::unmigratable,
    },
    Scenario {
        name: "idle",
        description: "A VM whose device does nothing migrates, and the device works at the destination.",
        script: moves::idle,
    },
    Scenario {
        name: "flat-out",
        description: "A VM migrates while its device writes as fast as it can; memory is passed over several times.",
        script: moves::flat_out,
    },
    Scenario {
        name: "four-devices",
        description: "A VM migrates with four devices of one process, which share an address space and write flat out.",
        script: moves::four_devices,
    },
    Scenario {
        name: "two-processes",
        description: "A VM migrates with two devices in two server processes, which write flat out.",
        script: moves::two_processes,
    },
    Scenario {
        name: "multifd",
        description: "A VM with two devices that write flat out migrates over several connections.",
        script: moves::multifd,
    },
    Scenario {
        name: "file",
        description: "A VM is written to a file, goes on from it elsewhere, and comes back the same way.",
        script: moves::file_and_back,
    },
    Scenario {
        name: "ten-hops",
        description: "A VM with two busy devices migrates ten times in a row, back and forth.",
        script: moves::ten_hops,
    },
    Scenario {
        name: "cancel",
        description: "A migration is called off in each of its phases; the VM works on, and migrates in the end.",
        script: cancels::everywhere,
    },
    Scenario {
        name: "kill-source-qemu",
        description: "The source's QEMU is killed in each phase: the destination has the whole guest, or never runs it.",
        script: kills::source_qemu,
    },
    Scenario {
        name: "kill-dest-qemu",
        description: "The destination's QEMU is killed in each phase: the VM works on at the source, and migrates in the end.",
        script: kills::dest_qemu,
    },
    Scenario {
        name: "kill-source-server",
        description: "The source's server is killed in each phase: the guest lives on without its device, or whole at the destination.",
        script: kills::source_server,
    },
    Scenario {
        name: "kill-dest-server",
        description: "The destination's server is killed in each phase: the VM works on at the source, and migrates in the end.",
        script: kills::dest_server,
    },
    Scenario {
        name: "stall-source-server",
        description: "The source's server gives no answer for longer than QEMU waits: the VM works on, and migrates in the end.",
        script: stalls::source_server,
    },
    Scenario {
        name: "stall-dest-server",
        description: "The destination's server gives no answer for longer than QEMU waits: the VM works on, and migrates in the end.",
        script: stalls::dest_server,
    },
    Scenario {
        name: "other-parameters",
        description: "A destination whose device has other parameters refuses the VM, which works on and migrates elsewhere.",
        script: refusals::other_parameters,
    },
    Scenario {
        name: "flipped-bits",
        description: "A stream with a flipped bit in the device's part is refused, and the error names the device.",
        script: refusals::flipped_bits,
    },
    Scenario {
        name: "iommu",
        description: "A guest with an IOMMU migrates, or is refused with the reason and works on.",
        script: refusals::viommu,
    },
    Scenario {
        name: "device-reset",
        description: "The guest resets its devices during pre-copy, and has them write on.",
        script: events::device_reset,
    },
    Scenario {
        name: "reboot",
        description: "A guest with four devices reboots during pre-copy: firmware remaps low memory under the devices.",
        script: events::reboot,
    },
    Scenario {
        name: "hot-plug",
        description: "A device is plugged before and unplugged after a migration, and neither during it.",
        script: events::hot_plug,
    },
    Scenario {
        name: "pending-interrupts",
        description: "Interrupts whose cause was not acknowledged at the switch-over come again at the destination.",
        script: events::pending_interrupts,
    },
];

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Migrates a VM under a load with QEMU's own defaults, once, and checks it as every scenario does; nothing is looked at meanwhile
/// that could slow it down. What the migration took is in the report.
pub fn measure(load: Load, setup: &Setup) -> ScenarioReport {
    run_with(load.scenario(), setup, Recorder::new().blind())
}

/// Plays a scenario. What could not be done or did not hold is in the report.
pub fn run(scenario: &Scenario, setup: &Setup) -> ScenarioReport {
    run_with(scenario, setup, Recorder::new())
}

/// Plays a scenario, written down by a given recorder.
pub fn run_with(scenario: &Scenario, setup: &Setup, recorder: Recorder) -> ScenarioReport {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            let failed = Outcome::Failed(format!("no folder for the scenario: {error}"));
            return recorder.finish(scenario.name, scenario.description, failed, String::new());
        }
    };
    let mut stage = Stage::new(setup, recorder, folder);
    let outcome = match (scenario.script)(&mut stage) {
        Ok(()) => Outcome::Passed,
        Err(error @ Failure::Missing(_)) => Outcome::Skipped(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let (recorder, log) = stage.end();
    recorder.finish(scenario.name, scenario.description, outcome, log)
}
