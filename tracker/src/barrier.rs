//! [`Barrier`]: what keeps a writer that skips a page already dirty from losing its data.
//!
//! A device writes a page and then looks at the page's bit; the reader clears the bit and then copies the page. If the
//! look may overtake the write, as it does on every CPU with a store buffer, the writer sees the bit still set, skips,
//! and the reader copies the old data. One of them needs a full barrier between its two steps. The reader is the rarer
//! one: it clears, then has the kernel run a barrier on every other running thread of the process
//! (`membarrier(2)`, `PRIVATE_EXPEDITED`), and only then hands its report over. Where the kernel will not, both sides fence.

use std::io;
use std::sync::OnceLock;

use thiserror::Error;

use crate::sync::{Ordering, fence};

/// How the writer's look at a bit is kept behind its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The reader's `membarrier(2)`; a writer pays nothing.
    Asymmetric,
    /// A full fence on both sides, at every mark.
    Fences,
}

/// The kernel refused a barrier that it had promised: what was cleared just before may be lost.
#[derive(Debug, Error)]
#[error("membarrier failed")]
pub struct BarrierError(#[source] io::Error);

impl Barrier {
    /// The best that this process can have. The first call registers the process with the kernel.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Barrier> = OnceLock::new();
        *DETECTED.get_or_init(|| match kernel::register() {
            Ok(()) => Self::Asymmetric,
            Err(error) => {
                tracing::info!(%error, "no private expedited membarrier: every mark has a full fence");
                Self::Fences
            }
        })
    }

    /// The reader's half: after it, data written by a mark that found its bit set before the clear is visible.
    pub(crate) fn reader(self) -> Result<(), BarrierError> {
        match self {
            Self::Asymmetric => kernel::barrier().map_err(BarrierError),
            Self::Fences => {
                fence(Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

#[cfg(not(loom))]
mod kernel {
    use std::io;

    use rustix::thread::{MembarrierCommand, membarrier};

    pub(super) fn register() -> io::Result<()> {
        membarrier(MembarrierCommand::RegisterPrivateExpedited)?;
        barrier()
    }

    pub(super) fn barrier() -> io::Result<()> {
        Ok(membarrier(MembarrierCommand::PrivateExpedited)?)
    }
}

/// The model of the barrier: a fence on each side, see [`crate::sync::light_fence`].
#[cfg(loom)]
mod kernel {
    use std::io;

    use crate::sync::{Ordering, fence};

    pub(super) fn register() -> io::Result<()> {
        Ok(())
    }

    pub(super) fn barrier() -> io::Result<()> {
        fence(Ordering::SeqCst);
        Ok(())
    }
}
