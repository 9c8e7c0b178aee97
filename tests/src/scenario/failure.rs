//! Why a scenario did not pass.

use std::io;

use crate::heat::HeatError;
use crate::qemu::{Difference, QemuError};

/// Why a scenario did not pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A VM did not do what it was to do.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Memory could not be watched.
    #[error(transparent)]
    Heat(#[from] HeatError),
    /// The destination's memory is not the source's.
    #[error("memory was lost between source and destination: {0}")]
    Lost(Difference),
    /// The guest found something wrong.
    #[error("the guest: {0}")]
    Guest(String),
    /// A migration did not end as it was to.
    #[error("the migration ended as {ending}, not as {wanted}: {reason}")]
    Migration {
        /// How it ended.
        ending: String,
        /// How it was to end.
        wanted: &'static str,
        /// What QEMU says.
        reason: String,
    },
    /// Something else that must hold did not.
    #[error("{0}")]
    Broken(String),
    /// The set-up lacks what the scenario needs.
    #[error("the set-up has no {0}")]
    Missing(&'static str),
}

/// Result of a step.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Fails with a text when something does not hold.
pub(super) fn hold(condition: bool, otherwise: impl FnOnce() -> String) -> Result {
    if condition {
        return Ok(());
    }
    Err(Failure::Broken(otherwise()))
}
