//! [`AssumeDirty`]: the tracker of a device that nothing tracks, for users who ask for it.
//!
//! Every page counts as written at all times, so that a migration sends everything again once the device has stopped.

use crate::sync::Mutex;
use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PageSizes, PeekSupport, RangeControl, RangeSet,
    RangeUpdate, ReportBitmap, TrackerError, TrackerKind,
};

/// Reports every page of every started range, always.
#[derive(Debug)]
pub(crate) struct AssumeDirty {
    started: Mutex<RangeSet>,
}

impl AssumeDirty {
    pub(crate) fn new() -> Self {
        Self {
            started: Mutex::new(RangeSet::default()),
        }
    }
}

impl DirtyTracker for AssumeDirty {
    fn kind(&self) -> TrackerKind {
        TrackerKind::AssumeDirty
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            control: RangeControl::PerRange,
            page_sizes: PageSizes::ANY,
            max_ranges: None,
            update: RangeUpdate::Live,
            peek: PeekSupport::Native,
        }
    }

    fn start(&self, ranges: &[IovaRange], _page_size: PageSize) -> Result<(), TrackerError> {
        *self.started.lock() = RangeSet::disjoint(ranges)?;
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        *self.started.lock() = RangeSet::default();
        Ok(())
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.peek(report)
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        if !self.started.lock().contains(&report.range()) {
            return Err(TrackerError::NotStarted(report.range()));
        }
        report.mark(report.range());
        Ok(())
    }
}
