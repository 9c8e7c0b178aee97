//! [`Untracked`]: stands in an address space for a device that nothing tracks.
//!
//! A log without what the device writes would call pages clean that are not, so none begins as long as the device is there.

use std::sync::Arc;

use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PageSizes, PeekSupport, RangeControl, RangeUpdate,
    ReportBitmap, TrackerError, TrackerKind,
};

/// Refuses to start.
#[derive(Debug)]
pub(crate) struct Untracked {
    device: Arc<str>,
}

impl Untracked {
    /// For the device of that name.
    pub(crate) fn new(device: &str) -> Self {
        Self {
            device: device.into(),
        }
    }
}

impl DirtyTracker for Untracked {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Untracked
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

    fn start(&self, _ranges: &[IovaRange], _page_size: PageSize) -> Result<(), TrackerError> {
        Err(TrackerError::Untracked(self.device.clone()))
    }

    fn stop(&self) -> Result<(), TrackerError> {
        Ok(())
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.peek(report)
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        Err(TrackerError::NotStarted(report.range()))
    }
}
