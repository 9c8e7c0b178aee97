//! Deliberate faults: what a check of this tracker must catch.
//!
//! A tracker with a fault set marks the long way round; without one, and without the cargo feature, nothing differs.

use std::fmt;
use std::sync::Arc;

use super::SoftwareTracker;
use crate::granules::{GRANULE, Granules};
use crate::sync::Mutex;
use crate::{Iova, IovaRange, ReportBitmap};

/// A way to break the promise.
#[derive(Clone)]
pub enum Fault {
    /// Calls this in place of the reader's barrier.
    ReaderBarrier(Arc<dyn Fn() + Send + Sync>),
    /// Ignores every further mark of the 4 KiB page of this address.
    SuppressPage(Iova),
    /// Hands over what a report found with the next report of the same range, so that the last ones are missing.
    LateReport,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReaderBarrier(_) => f.write_str("ReaderBarrier"),
            Self::SuppressPage(iova) => write!(f, "SuppressPage({iova})"),
            Self::LateReport => f.write_str("LateReport"),
        }
    }
}

/// The faults of a tracker.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    barrier: Option<Fault>,
    suppressed: Vec<Iova>,
    held_back: Option<Granules>,
}

impl SoftwareTracker {
    /// Breaks the tracker from now on. Faults add up and last as long as the tracker.
    ///
    /// # Panics
    /// If there is no memory for the pages that [`Fault::LateReport`] holds back.
    pub fn set_fault(&self, fault: Fault) {
        let started = self.started.lock();
        self.faults.add(fault);
        self.update_marking(&started);
    }
}

impl Faults {
    fn add(&self, fault: Fault) {
        let mut state = self.state.lock();
        match fault {
            Fault::ReaderBarrier(_) => state.barrier = Some(fault),
            Fault::SuppressPage(iova) => state.suppressed.push(iova),
            Fault::LateReport => state.held_back = Some(Granules::of_whole_space().expect("address space")),
        }
    }

    /// Whether marks have to come by here.
    pub(super) fn are_set(&self) -> bool {
        !self.state.lock().suppressed.is_empty()
    }

    /// Marks `range` in `log`, suppressed pages apart.
    pub(super) fn mark(&self, log: &Granules, range: IovaRange) {
        let is_suppressed = |page: Iova| {
            let granule = |iova: Iova| iova.get() >> GRANULE.shift();
            self.state
                .lock()
                .suppressed
                .iter()
                .any(|&s| granule(s) == granule(page))
        };
        let mut rest = Some(range);
        while let Some(part) = rest {
            let page_last = (part.start().get() | (GRANULE.bytes() - 1)).min(part.last().get());
            if !is_suppressed(part.start()) {
                log.mark_page(part.start());
            }
            rest = (page_last < part.last().get()).then(|| IovaRange::of(page_last + 1, part.last().get()));
        }
    }

    /// Reports what was held back and holds back what is due, if that is the fault.
    pub(super) fn take(&self, log: &Granules, report: &mut ReportBitmap<'_>) -> bool {
        let state = self.state.lock();
        let Some(held_back) = &state.held_back else {
            return false;
        };
        held_back.take(&report.range(), report);
        log.take(&report.range(), &mut &*held_back);
        true
    }

    /// Does what is set in place of the reader's barrier, if anything is.
    pub(super) fn reader_barrier(&self) -> bool {
        let barrier = self.state.lock().barrier.clone();
        let Some(Fault::ReaderBarrier(replacement)) = barrier else {
            return false;
        };
        replacement();
        true
    }
}
