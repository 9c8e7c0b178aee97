//! Where a scenario is played: it starts servers and VMs, and keeps what is needed for the report.

use std::fmt::Write;
use std::path::PathBuf;

use tempfile::TempDir;

use super::failure::{Failure, Result};
use super::place::{Place, Processes};
use super::setup::{Launcher, Setup};
use super::vm::Vm;
use crate::qemu::{Machine, MachineOptions, Start, last_lines};
use crate::record::Recorder;

/// Lines of each log that a report has.
const LAST_LINES: usize = 60;

/// What a VM is to be like, on either side of a migration.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Devices.
    pub(super) devices: usize,
    /// How their servers are spread.
    pub(super) processes: Processes,
    /// More arguments for QEMU.
    pub(super) extra: Vec<String>,
    /// More parameters for the guest's kernel.
    pub(super) kernel_parameters: Vec<String>,
}

impl Plan {
    /// So many devices in one server process.
    pub(super) fn devices(devices: usize) -> Self {
        Self {
            devices,
            processes: Processes::One,
            extra: Vec::new(),
            kernel_parameters: Vec::new(),
        }
    }
}

/// Which side of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Dest,
}

/// Where a scenario is played.
pub(super) struct Stage<'a> {
    setup: &'a Setup,
    recorder: Recorder,
    folder: TempDir,
    machines: usize,
}

impl<'a> Stage<'a> {
    pub(super) fn new(setup: &'a Setup, recorder: Recorder, folder: TempDir) -> Self {
        Self {
            setup,
            recorder,
            folder,
            machines: 0,
        }
    }

    /// What the scenario is played with.
    pub(super) fn setup(&self) -> &'a Setup {
        self.setup
    }

    /// Writes down what happens.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// A path in the scenario's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the servers of one side.
    pub(super) fn place(&self, side: Side, plan: &Plan) -> Result<Place> {
        let (name, launcher) = match side {
            Side::Source => ("source", &self.setup.source),
            Side::Dest => ("dest", &self.setup.dest),
        };
        self.place_with(name, launcher, plan)
    }

    /// Starts given servers.
    pub(super) fn place_with(&self, name: &str, launcher: &Launcher, plan: &Plan) -> Result<Place> {
        Place::open(name, self.folder.path(), launcher, plan.devices, plan.processes)
    }

    /// Boots a VM with the devices of a place.
    pub(super) fn boot(&mut self, place: &Place, plan: &Plan) -> Result<Vm> {
        self.recorder.phase(format!("boot at the {}", place.name()));
        let options = self.options(place, plan, Start::Boot);
        let machine = self.start(&options)?;
        self.recorder.watch_memory(machine.ram().file()?)?;
        Vm::booted(machine, plan.devices)
    }

    /// Starts a QEMU that waits for a migration to a place.
    pub(super) fn await_migration(&mut self, place: &Place, plan: &Plan) -> Result<Machine> {
        let options = self.options(place, plan, Start::Incoming);
        self.start(&options)
    }

    /// What a VM at a place is made of.
    pub(super) fn options(&self, place: &Place, plan: &Plan, start: Start) -> MachineOptions {
        MachineOptions {
            binary: self.setup.qemu.clone(),
            kernel: self.setup.kernel.clone(),
            initrd: self.setup.initrd.clone(),
            memory: self.setup.memory,
            devices: place.devices().to_vec(),
            extra: plan.extra.clone(),
            kernel_parameters: plan.kernel_parameters.clone(),
            start,
        }
    }

    /// Starts a QEMU.
    pub(super) fn start(&mut self, options: &MachineOptions) -> Result<Machine> {
        self.machines += 1;
        let name = format!("qemu{}", self.machines);
        Ok(Machine::start(options, self.folder.path(), &name)?)
    }

    /// The logs of everything that was started, and the recorder.
    pub(super) fn end(self) -> (Recorder, String) {
        let log = self.logs().unwrap_or_else(|error| error.to_string());
        (self.recorder, log)
    }

    fn logs(&self) -> Result<String> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("log" | "console")) {
                paths.push(path);
            }
        }
        paths.sort();
        let mut text = String::new();
        for path in paths {
            let bytes = std::fs::read(&path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let log = last_lines(&String::from_utf8_lossy(&bytes), LAST_LINES);
            writeln!(text, "--- {name}\n{log}").expect("a string takes it");
        }
        Ok(text)
    }
}

/// What a set-up may lack.
pub(super) fn required<'a, T>(option: Option<&'a T>, what: &'static str) -> Result<&'a T> {
    option.ok_or(Failure::Missing(what))
}
