//! Zero-copy writes: [`Lease`], and the list of those that are held.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pagetrail_tracker::IovaRange;
use parking_lot::{Condvar, Mutex};
use vm_memory::VolatileSlice;

use super::DmaError;
use super::mapping::Mapping;
use super::space::Space;
use super::table::Piece;

/// A writable slice of guest memory: its pages are marked when it is dropped. Stop, unmap, reset and
/// disconnect wait for it.
///
/// The memory stays mapped as long as the lease lives, even if its holder is so slow that it was given up and
/// unmapped.
pub struct Lease {
    space: Arc<Space>,
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
    range: IovaRange,
}

impl Lease {
    /// A lease of `piece`. Called while the piece's table cannot change, so that no unmap misses it.
    pub(super) fn new(space: &Arc<Space>, piece: Piece<'_>) -> Self {
        let range = piece.range();
        space.leases.add(range);
        Self {
            space: Arc::clone(space),
            mapping: Arc::clone(piece.mapping),
            offset: piece.offset,
            len: piece.len,
            range,
        }
    }

    /// The bytes, for volatile access.
    pub fn slice(&self) -> VolatileSlice<'_> {
        self.mapping.slice(self.offset, self.len)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.space.tracker.mark(self.range);
        self.space.leases.remove(self.range);
        if self.mapping.has_failed() {
            self.space.note(DmaError::MemoryFailed(self.range.start().get()));
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.range)
    }
}

/// The leases that are held of one connection's memory.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<Vec<IovaRange>>,
    returned: Condvar,
}

impl Leases {
    fn add(&self, range: IovaRange) {
        self.held.lock().push(range);
    }

    fn remove(&self, range: IovaRange) {
        let mut held = self.held.lock();
        // Leases of the same bytes are as good as each other.
        if let Some(at) = held.iter().position(|&other| other == range) {
            held.swap_remove(at);
        }
        drop(held);
        self.returned.notify_all();
    }

    /// Waits until no lease of `range` is held.
    ///
    /// # Errors
    ///
    /// One that is held at the deadline.
    pub(super) fn wait(&self, range: IovaRange, deadline: Instant) -> Result<(), IovaRange> {
        let mut held = self.held.lock();
        loop {
            let Some(&lease) = held.iter().find(|lease| lease.overlaps(&range)) else {
                return Ok(());
            };
            if self.returned.wait_until(&mut held, deadline).timed_out() && held.contains(&lease) {
                return Err(lease);
            }
        }
    }
}
