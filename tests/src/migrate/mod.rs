//! A live migration of one VM's devices between two sets of servers, as QEMU does it.
//!
//! [`Migration`] goes step by step: [`Migration::start`] begins logging and the copy, each [`Migration::pass`] is one pre-copy
//! pass, [`Migration::switch_over`] stops the source and starts the destination, and [`Migration::cancel`] gives up. Between
//! the steps the caller may do to the VM whatever a guest or a user would ([`churn`]). [`run()`] does all of it.
//!
//! Source and destination have guest memories of their own; pages travel by copy, and what a real migration would send is
//! counted. There is no network: bandwidth is what this machine copies at.

pub mod churn;
mod dirty;
mod engine;
mod run;
mod saved_state;
mod stats;
mod transfer;
mod workload;

pub use dirty::{LoggingPlan, qemu_ranges};
pub use engine::{Event, Migration, Observer, Options, PreCopy, Silent};
pub use run::run;
pub use saved_state::{Support, cancel_saving, read_available, read_stream, resume, write_stream};
pub use stats::{Outcome, PassKind, PassStats, ReplayCheck};
pub use transfer::{PAGE_HEADER, Transfer};
pub use workload::{AfterCheck, Arena, Load, Workload, WorkloadError};

/// Why a migration could not go on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A device, or guest memory.
    #[error(transparent)]
    Vm(#[from] crate::vmm::VmError),
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A device does not migrate.
    #[error("{0}: the device does not support migration (DEVICE_FEATURE 1 is refused)")]
    NotMigratable(String),
    /// Source and destination do not match.
    #[error(
        "{sources} source devices and {dests} destination devices; give as many --dest as --source, in the same order"
    )]
    Unpaired {
        /// Source devices.
        sources: usize,
        /// Destination devices.
        dests: usize,
    },
    /// Several devices that cannot be stopped together.
    #[error("{0}: several devices migrate together only if all support P2P, and this one does not")]
    NoP2p(String),
    /// The workload.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

impl From<crate::vmm::MemoryError> for MigrateError {
    fn from(error: crate::vmm::MemoryError) -> Self {
        Self::Vm(error.into())
    }
}
