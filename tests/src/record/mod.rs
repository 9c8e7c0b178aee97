//! Writes down what a scenario does, while it does it.
//!
//! A scenario has one [`Recorder`]. It names its phases, hands over what `query-migrate` answers whenever it has asked, and says
//! which file holds the guest's memory; the recorder makes of it what a [`ScenarioReport`](crate::report::vm::ScenarioReport)
//! holds: passes, throughput, and the heat map. It asks QEMU nothing itself, so that a scenario's own steps are all that QEMU
//! sees, and judges nothing.

mod info;
mod migration;
mod recorder;

pub use info::{MigrateInfo, RamInfo, VfioInfo};
pub use recorder::Recorder;
