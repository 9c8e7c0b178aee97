//! Running and stopping.

use std::time::Instant;

/// Control over what a device does on its own.
///
/// A device is built quiescent. Between [`quiesce`](Self::quiesce) and [`run`](Self::run) it does not touch guest memory,
/// raise no cause and does not change the state that [`SavedState::save`](super::SavedState::save) returns, except through
/// `reset`, `restore` and, in the P2P states, register writes.
pub trait RunState: Send + Sync {
    /// Lets the device work. Work that was in flight goes on where it stopped. Idempotent.
    fn run(&self);

    /// Returns when the device is quiescent, at the latest at `deadline`. Idempotent.
    ///
    /// # Errors
    ///
    /// [`QuiesceError`] when work in flight did not stop in time. The server then fails the device: it is not run again
    /// before a reset that quiesces it.
    fn quiesce(&self, deadline: Instant) -> Result<(), QuiesceError>;

    /// Puts a quiescent device into the state it was built in: registers, work in flight and causes gone.
    fn reset(&self);
}

/// A device did not become quiescent in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device did not become quiescent in time: {0}")]
pub struct QuiesceError(pub String);
