//! [`SoftwareTracker`]: the tracker that software-only devices mark by hand.
//!
//! One per address space, shared by all of its emulated devices: a device writes guest memory and then
//! [marks](SoftwareTracker::mark) what it wrote, always in this order. A mark of a page that is dirty already is a load
//! and a branch, and so is a mark while nothing is tracked; see [`Barrier`] for why that loses nothing.
//!
//! Bits are kept per 4 KiB of IOVA, whether or not anything is mapped there. Memory is taken 4 KiB at a time, for
//! 128 MiB of address space in which something was marked (for low addresses in large pages, if the kernel has them), up
//! to a limit; what is marked beyond the limit is kept as one bit per 128 MiB, so that a client that has devices write all
//! over an empty address space gets a coarse log and no more memory. The memory is kept until the tracker is dropped.
//!
//! What it does *not* do: look at started ranges when a page is marked. They only decide what a reader may ask for.

#[cfg(feature = "fault-injection")]
mod fault;
mod tracking;

use std::io;

use crate::granules::{DEFAULT_EXACT_BYTES, Granules};
use crate::sync::{AtomicU8, Mutex, Ordering, fence, light_fence};
use crate::{Barrier, IOVA_END, Iova, IovaRange, RangeSet};

#[cfg(feature = "fault-injection")]
pub use fault::Fault;

/// The log of what an address space's emulated devices wrote. See the module's documentation.
#[derive(Debug)]
pub struct SoftwareTracker {
    marking: AtomicU8,
    log: Granules,
    barrier: Barrier,
    started: Mutex<RangeSet>,
    #[cfg(feature = "fault-injection")]
    faults: fault::Faults,
}

/// What a mark has to do, the values of [`SoftwareTracker::marking`].
mod marking {
    /// Nothing: tracking is off.
    pub(super) const OFF: u8 = 0;
    /// Set bits; the reader has the barrier.
    pub(super) const ON: u8 = 1;
    /// Find out the long way, with a full fence first; tracking is off.
    pub(super) const CAREFUL_OFF: u8 = 2;
    /// As before; tracking is on.
    pub(super) const CAREFUL_ON: u8 = 3;
}

/// Makes a [`SoftwareTracker`] that differs from the usual.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareTrackerBuilder {
    barrier: Option<Barrier>,
    iova_end: u64,
    exact_bytes: u64,
}

impl SoftwareTrackerBuilder {
    /// Uses `barrier` instead of the best one that the kernel has.
    #[must_use]
    pub fn barrier(mut self, barrier: Barrier) -> Self {
        self.barrier = Some(barrier);
        self
    }

    /// Covers the IOVAs below `end` instead of those below [`IOVA_END`], which `end` may not exceed.
    #[must_use]
    pub fn iova_end(mut self, end: u64) -> Self {
        self.iova_end = end.min(IOVA_END);
        self
    }

    /// Keeps an exact log of at least `bytes` of address space (8 TiB by default), and a coarse one of the rest.
    ///
    /// An exact log takes a 32 768th of the address space in which something was marked.
    #[must_use]
    pub fn exact_bytes(mut self, bytes: u64) -> Self {
        self.exact_bytes = bytes;
        self
    }

    /// The tracker.
    ///
    /// # Errors
    /// The kernel's, if the address space of this process has no room for it. A tracker takes 128 GiB of addresses (not of
    /// memory); where it may not, about half a GiB is enough, and only the lowest [`exact_bytes`](Self::exact_bytes) have
    /// an exact log.
    pub fn build(self) -> io::Result<SoftwareTracker> {
        let barrier = self.barrier.unwrap_or_else(Barrier::detect);
        let tracker = SoftwareTracker {
            marking: AtomicU8::new(marking::OFF),
            log: Granules::new(self.iova_end, self.exact_bytes)?,
            barrier,
            started: Mutex::new(RangeSet::default()),
            #[cfg(feature = "fault-injection")]
            faults: fault::Faults::default(),
        };
        tracker.update_marking(&RangeSet::default());
        Ok(tracker)
    }
}

impl SoftwareTracker {
    /// A tracker of the IOVAs below [`IOVA_END`].
    ///
    /// # Errors
    /// See [`SoftwareTrackerBuilder::build`].
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// For a tracker that differs from the usual.
    pub fn builder() -> SoftwareTrackerBuilder {
        SoftwareTrackerBuilder {
            barrier: None,
            iova_end: IOVA_END,
            exact_bytes: DEFAULT_EXACT_BYTES,
        }
    }

    /// The barrier that keeps marks in order.
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// Records that the bytes of `range` were written. Call it after the write, never before.
    ///
    /// What lies at or above [`IOVA_END`] is not recorded: nothing may be mapped there.
    #[inline]
    pub fn mark(&self, range: IovaRange) {
        light_fence();
        let marking = self.marking.load(Ordering::Relaxed);
        if marking == marking::ON {
            self.log.mark(range);
        } else if marking != marking::OFF {
            self.mark_carefully(range);
        }
    }

    /// Records that a byte of the 4 KiB page of `iova` was written. Call it after the write, never before.
    #[inline]
    pub fn mark_page(&self, iova: Iova) {
        light_fence();
        let marking = self.marking.load(Ordering::Relaxed);
        if marking == marking::ON {
            self.log.mark_page(iova);
        } else if marking != marking::OFF {
            self.mark_carefully(IovaRange::of(iova.get(), iova.get()));
        }
    }

    /// Whether the page of `iova` is due, as far as the caller can tell while others mark and read.
    pub fn is_due(&self, iova: Iova) -> bool {
        self.log.is_marked(iova)
    }

    /// A mark with a full fence between the caller's data and the look at anything.
    #[cold]
    fn mark_carefully(&self, range: IovaRange) {
        if self.barrier == Barrier::Fences {
            fence(Ordering::SeqCst);
        }
        if self.marking.load(Ordering::Relaxed) == marking::CAREFUL_OFF {
            return;
        }
        #[cfg(feature = "fault-injection")]
        return self.faults.mark(&self.log, range);
        #[cfg(not(feature = "fault-injection"))]
        self.log.mark(range);
    }

    /// Switches marks on or off. The caller has a barrier to follow.
    fn update_marking(&self, started: &RangeSet) {
        let state = match (self.is_careful(), started.is_empty()) {
            (false, true) => marking::OFF,
            (false, false) => marking::ON,
            (true, true) => marking::CAREFUL_OFF,
            (true, false) => marking::CAREFUL_ON,
        };
        self.marking.store(state, Ordering::SeqCst);
    }

    fn is_careful(&self) -> bool {
        #[cfg(feature = "fault-injection")]
        if self.faults.are_set() {
            return true;
        }
        self.barrier == Barrier::Fences
    }
}
