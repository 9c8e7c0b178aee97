//! The reader's side of [`SoftwareTracker`].

use super::SoftwareTracker;
use crate::granules::GRANULE;
use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PageSizes, PeekSupport, RangeControl, RangeSet,
    RangeUpdate, ReportBitmap, TrackerError, TrackerKind,
};

impl DirtyTracker for SoftwareTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Software
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            control: RangeControl::Global,
            page_sizes: PageSizes::only(GRANULE),
            max_ranges: None,
            update: RangeUpdate::Live,
            peek: PeekSupport::Native,
        }
    }

    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<(), TrackerError> {
        if !self.capabilities().page_sizes.contains(page_size) {
            return Err(TrackerError::PageSize(page_size));
        }
        let wanted = RangeSet::disjoint(ranges)?;
        let mut started = self.started.lock();
        // What was marked before belongs to nobody. A page that lies in an old range as well is not cleared.
        for range in wanted.difference(&started).ranges() {
            self.log.discard(range);
        }
        self.update_marking(&wanted);
        if let Err(error) = self.reader_barrier() {
            self.update_marking(&started);
            return Err(error);
        }
        *started = wanted;
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        let mut started = self.started.lock();
        *started = RangeSet::default();
        self.update_marking(&started);
        Ok(())
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.check_started(report)?;
        self.take(report);
        self.reader_barrier()
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.check_started(report)?;
        self.log.peek(&report.range(), report);
        Ok(())
    }
}

impl SoftwareTracker {
    fn check_started(&self, report: &ReportBitmap<'_>) -> Result<(), TrackerError> {
        if self.started.lock().contains(&report.range()) {
            return Ok(());
        }
        Err(TrackerError::NotStarted(report.range()))
    }

    fn take(&self, report: &mut ReportBitmap<'_>) {
        #[cfg(feature = "fault-injection")]
        if self.faults.take(&self.log, report) {
            return;
        }
        self.log.take(&report.range(), report);
    }

    fn reader_barrier(&self) -> Result<(), TrackerError> {
        #[cfg(feature = "fault-injection")]
        if self.faults.reader_barrier() {
            return Ok(());
        }
        Ok(self.barrier.reader()?)
    }
}
