//! Virtual machines in QEMU processes.
//!
//! * [`Machine`]: one process, what it runs, and its end.
//! * [`Qmp`]: its monitor.
//! * [`Agent`]: the program in its guest (`tests/guest`).
//! * [`GuestRam`]: its guest's memory, read from outside while nothing or everything writes it.
//!
//! Every wait has an end. Processes end when their owner is dropped, and what they wrote is kept for the one who asks why.

mod agent;
mod machine;
mod options;
mod qmp;
mod ram;

use std::io;
use std::time::Duration;

pub use agent::Agent;
pub use machine::Machine;
pub(crate) use machine::last_lines;
pub use options::{DMA_WINDOW, DeviceSocket, MachineOptions, MemorySize, PORTS, Start};
pub use qmp::{Event, Qmp};
pub use ram::{Difference, GuestRam};

/// Why a VM did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// QEMU does not start.
    #[error("{binary} cannot be started: {error}")]
    Start {
        /// The binary.
        binary: String,
        /// Why.
        error: io::Error,
    },
    /// The process has ended.
    #[error("QEMU has ended ({status}): {log}")]
    Ended {
        /// How.
        status: String,
        /// What it wrote.
        log: String,
    },
    /// The monitor's connection has ended.
    #[error("QEMU's monitor has closed its connection")]
    MonitorClosed,
    /// A command was refused.
    #[error("{command}: {message}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        message: String,
    },
    /// Something did not happen in time.
    #[error("in {} s this did not come about: {what}", limit.as_secs())]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The guest's agent could not do something.
    #[error("the guest's agent: {0}")]
    Agent(String),
    /// An answer that makes no sense.
    #[error("{what} cannot be understood: {text}")]
    Strange {
        /// Whose answer.
        what: &'static str,
        /// The answer.
        text: String,
    },
}

/// Result of an action on a VM.
pub type Result<T, E = QemuError> = std::result::Result<T, E>;

/// Waits until `poll` gives something.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if let Some(found) = poll()? {
            return Ok(found);
        }
        if std::time::Instant::now() > deadline {
            return Err(QemuError::Late {
                what: what.to_owned(),
                limit,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
