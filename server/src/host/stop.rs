//! The request to stop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A handle that asks a [`Host`](super::Host) to stop. Clones ask the same host.
#[derive(Debug, Clone)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    pub(super) fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(event)))
    }

    /// Asks the host to stop. Idempotent, and safe to call from any thread.
    pub fn request(&self) {
        // The event is never read, so that every thread sees it; a full counter has been requested already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    /// Readable once a stop was requested.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
