//! [`TrackedRegion`].

use std::sync::Arc;

use vm_memory::bitmap::{Bitmap, RefSlice, WithBitmapSlice};

use crate::{Iova, IovaRange, SoftwareTracker};

/// A region of guest memory as `vm-memory` sees it: offset 0 is the IOVA `base`.
#[derive(Clone, Debug)]
pub struct TrackedRegion {
    tracker: Arc<SoftwareTracker>,
    base: Iova,
}

impl TrackedRegion {
    /// The region of `tracker`'s address space that begins at `base`.
    pub fn new(tracker: Arc<SoftwareTracker>, base: Iova) -> Self {
        Self { tracker, base }
    }

    /// The bytes at `offset`, as far as they lie in the address space.
    fn range(&self, offset: usize, len: usize) -> Option<IovaRange> {
        let start = self.base.checked_add(offset as u64)?;
        let beyond = (len as u64).checked_sub(1)?;
        let last = start.checked_add(beyond).unwrap_or(Iova::new(u64::MAX));
        IovaRange::new(start, last).ok()
    }
}

impl<'a> WithBitmapSlice<'a> for TrackedRegion {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for TrackedRegion {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(range) = self.range(offset, len) {
            self.tracker.mark(range);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.base
            .checked_add(offset as u64)
            .is_some_and(|iova| self.tracker.is_due(iova))
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}
