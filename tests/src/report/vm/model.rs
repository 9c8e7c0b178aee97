//! The report's data. Times are seconds since the scenario began, unless they say otherwise.

use serde::{Deserialize, Serialize};

use crate::heat::HeatMap;
use crate::migrate::PassKind;

/// A run of scenarios.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmReport {
    /// What was run, where and when.
    pub run: RunInfo,
    /// The scenarios, in the order they were run in.
    pub scenarios: Vec<ScenarioReport>,
}

/// What was run, where and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RunInfo {
    /// Version of this tool.
    pub tool: String,
    /// QEMU, as it names itself.
    pub qemu: String,
    /// Path of the QEMU binary.
    pub qemu_binary: String,
    /// Path of the guest's kernel.
    pub kernel: String,
    /// Path of the guest's initrd.
    pub initrd: String,
    /// Command line of the source's device server.
    pub source_server: String,
    /// Command line of the destination's device server.
    pub dest_server: String,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// The machine: its system, and its processors.
    pub host: String,
    /// When the run began, in UTC.
    pub date: String,
    /// Seconds that the run took.
    pub seconds: f64,
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScenarioReport {
    /// Its name, by which it can be chosen.
    pub name: String,
    /// What is done, and what must hold.
    pub description: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds that it took.
    pub seconds: f64,
    /// What it was at, in order.
    pub phases: Vec<Phase>,
    /// The migrations it made, in order.
    pub migrations: Vec<Migration>,
    /// Which memory of the guest changed when.
    pub heat_map: Option<HeatMap>,
    /// What QEMU, the servers and the guest wrote.
    pub log: String,
}

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "message")]
pub enum Outcome {
    /// Everything held.
    Passed,
    /// Something did not hold, and what.
    Failed(String),
    /// It was not run, and why.
    Skipped(String),
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// When it began.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
}

/// One migration of the VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// From where to where.
    pub name: String,
    /// When it was asked for.
    pub began: f64,
    /// When it was seen to have ended.
    pub ended: f64,
    /// How it ended.
    pub ending: Ending,
    /// Seconds that the guest stood still, as QEMU tells: to the end of the source's work, in whole milliseconds.
    pub downtime: Option<f64>,
    /// Seconds from the source's `STOP` to the destination's `RESUME`.
    pub standstill: Option<f64>,
    /// Seconds that the guest was to stand still at most.
    pub downtime_limit: Option<f64>,
    /// Seconds from beginning to end, as QEMU tells.
    pub total: Option<f64>,
    /// Bytes of the guest's memory, all blocks.
    pub memory_bytes: u64,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Bytes of these that are VFIO devices' state.
    pub device_bytes: u64,
    /// Bytes of pages that were sent after they had been sent before.
    pub resent_bytes: u64,
    /// The passes over memory.
    pub passes: Vec<Pass>,
    /// What QEMU told on the way.
    pub samples: Vec<Sample>,
}

/// How a migration ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ending", content = "message")]
pub enum Ending {
    /// The VM is at the destination.
    Completed,
    /// It was called off.
    Cancelled,
    /// It failed, and why.
    Failed(String),
    /// Nobody saw its end: a process was killed.
    Unknown,
}

/// One pass over memory: what a look at the dirty log found, and the sending of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pass {
    /// Number, from 0.
    pub number: u64,
    /// Number of the last pass that this stands for: passes can be shorter than the time between two looks.
    pub last_number: u64,
    /// Which.
    pub kind: PassKind,
    /// When it was first seen.
    pub began: f64,
    /// When the next was first seen, or the end.
    pub ended: f64,
    /// Pages that were left to send when it was first seen.
    pub dirty_pages: u64,
    /// Pages that were sent while it lasted, zeros included.
    pub sent_pages: u64,
    /// Pages of these that are zero and were sent as a header.
    pub zero_pages: u64,
    /// Bytes on the wire while it lasted.
    pub wire_bytes: u64,
}

/// What QEMU told at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sample {
    /// When.
    pub at: f64,
    /// Bytes of memory left to send.
    pub remaining_bytes: u64,
    /// Bytes on the wire so far.
    pub wire_bytes: u64,
    /// Bytes of VFIO devices' state so far.
    pub device_bytes: u64,
    /// Bits per second on the wire, as QEMU tells.
    pub bits_per_second: f64,
    /// Pages that became dirty per second, as QEMU tells.
    pub dirty_pages_per_second: f64,
}

impl VmReport {
    /// Scenarios in which something did not hold.
    pub fn failed(&self) -> impl Iterator<Item = &ScenarioReport> {
        self.scenarios
            .iter()
            .filter(|scenario| matches!(scenario.outcome, Outcome::Failed(_)))
    }

    /// Scenarios in which everything held.
    pub fn passed(&self) -> impl Iterator<Item = &ScenarioReport> {
        self.scenarios
            .iter()
            .filter(|scenario| scenario.outcome == Outcome::Passed)
    }

    /// Scenarios that were not run.
    pub fn skipped(&self) -> impl Iterator<Item = &ScenarioReport> {
        self.scenarios
            .iter()
            .filter(|scenario| matches!(scenario.outcome, Outcome::Skipped(_)))
    }
}

impl Migration {
    /// How long the guest stood still, as exactly as is known.
    pub fn stood_still(&self) -> Option<f64> {
        self.standstill.or(self.downtime)
    }
}

impl ScenarioReport {
    /// The longest that the guest stood still in one of the migrations.
    pub fn downtime(&self) -> Option<f64> {
        let times = self.migrations.iter().filter_map(Migration::stood_still);
        times.reduce(f64::max)
    }

    /// Bytes on the wire of all migrations.
    pub fn wire_bytes(&self) -> u64 {
        self.migrations.iter().map(|migration| migration.wire_bytes).sum()
    }

    /// Bytes of device state of all migrations.
    pub fn device_bytes(&self) -> u64 {
        self.migrations
            .iter()
            .map(|migration| migration.device_bytes)
            .sum()
    }

    /// Bytes sent again in all migrations.
    pub fn resent_bytes(&self) -> u64 {
        self.migrations
            .iter()
            .map(|migration| migration.resent_bytes)
            .sum()
    }
}
