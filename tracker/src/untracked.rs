//! [`Untracked`]: stands in an address space for a device that nothing tracks.

use std::sync::Arc;

use crate::sync::Mutex;
use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PageSizes, PeekSupport, RangeControl, RangeSet,
    RangeUpdate, ReportBitmap, TrackerError, TrackerKind,
};

/// The tracker of a device that has none.
#[derive(Debug)]
pub(crate) enum Untracked {
    /// Refuses to start: a log without what the device of this name writes would call pages clean that are not.
    BlocksLog(Arc<str>),
    /// Reports every page of the ranges that are started, always, so that a migration sends them all again once the device has
    /// stopped.
    AllDirty(Mutex<RangeSet>),
}

impl Untracked {
    pub(crate) fn blocks_log(device: &str) -> Self {
        Self::BlocksLog(device.into())
    }

    pub(crate) fn all_dirty() -> Self {
        Self::AllDirty(Mutex::new(RangeSet::default()))
    }
}

impl DirtyTracker for Untracked {
    fn kind(&self) -> TrackerKind {
        match self {
            Self::BlocksLog(_) => TrackerKind::Untracked,
            Self::AllDirty(_) => TrackerKind::AssumeDirty,
        }
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
        match self {
            Self::BlocksLog(device) => return Err(TrackerError::Untracked(device.clone())),
            Self::AllDirty(started) => *started.lock() = RangeSet::disjoint(ranges)?,
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        if let Self::AllDirty(started) = self {
            *started.lock() = RangeSet::default();
        }
        Ok(())
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.peek(report)
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        match self {
            Self::AllDirty(started) if started.lock().contains(&report.range()) => {
                report.mark(report.range());
                Ok(())
            }
            _ => Err(TrackerError::NotStarted(report.range())),
        }
    }
}
