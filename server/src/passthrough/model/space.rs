//! [`FakeSpace`]: the kernel's address space.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagetrail_tracker::{Access, IommuError, IovaRange};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::passthrough::memory::{AddressSpace, Content};

/// Ranges that do not overlap.
#[derive(Debug, Default)]
pub(in crate::passthrough) struct FakeSpace {
    pub(in crate::passthrough) mapped: Mutex<Vec<(IovaRange, Access)>>,
    freed: Condvar,
    /// The next map fails with this.
    pub(in crate::passthrough) next_failure: Mutex<Option<Errno>>,
    /// Nothing is unmapped.
    pub(in crate::passthrough) keeps_all: AtomicBool,
}

impl AddressSpace for FakeSpace {
    fn map(
        &self,
        range: IovaRange,
        _file: &File,
        content: Content,
        patience: Duration,
    ) -> Result<(), IommuError> {
        if let Some(errno) = self.next_failure.lock().take() {
            return Err(match errno {
                Errno::NOMEM => IommuError::CannotLock(range),
                errno => IommuError::Map {
                    range,
                    source: errno.into(),
                },
            });
        }
        let deadline = Instant::now() + patience;
        let mut mapped = self.mapped.lock();
        while mapped.iter().any(|(other, _)| other.overlaps(&range)) {
            if self.freed.wait_until(&mut mapped, deadline).timed_out() {
                return Err(IommuError::Mapped(range));
            }
        }
        mapped.push((range, content.access));
        Ok(())
    }

    fn unmap(&self, range: IovaRange) -> Result<(), IommuError> {
        if self.keeps_all.load(Ordering::Relaxed) {
            let source = Errno::BUSY.into();
            return Err(IommuError::Unmap { range, source });
        }
        self.mapped.lock().retain(|(other, _)| *other != range);
        self.freed.notify_all();
        Ok(())
    }
}
