//! [`Linked`]: a tracker in the list of an address space.

use std::sync::Arc;

use super::LogError;
use super::log::lose;
use super::reader::Reader;
use crate::{
    DirtyTracker, IovaRange, PageSize, PeekSupport, RangeSet, RangeUpdate, ReportBitmap, TrackerError,
};

/// A tracker, the number of devices it serves, and the ranges it runs on.
#[derive(Debug)]
pub(super) struct Linked {
    tracker: Arc<dyn DirtyTracker>,
    pub(super) devices: usize,
    /// At least what is asked of it: fewer and longer ranges, if it cannot track as many.
    started: RangeSet,
    page_size: PageSize,
}

impl Linked {
    pub(super) fn new(tracker: Arc<dyn DirtyTracker>) -> Self {
        Self {
            tracker,
            devices: 0,
            started: RangeSet::default(),
            page_size: PageSize::SIZE_4K,
        }
    }

    /// Whether this is `tracker` itself.
    pub(super) fn is(&self, tracker: &Arc<dyn DirtyTracker>) -> bool {
        Arc::ptr_eq(&self.tracker, tracker)
    }

    /// Makes the tracker run on `ranges`, or stops it if there are none. After an error it runs as before, or the log
    /// of all `readers` is lost.
    pub(super) fn set_ranges(
        &mut self,
        ranges: &RangeSet,
        page_size: PageSize,
        readers: &mut [Reader],
    ) -> Result<(), LogError> {
        if ranges.is_empty() {
            return self.stop();
        }
        let capabilities = self.tracker.capabilities();
        let wanted = capabilities
            .max_ranges
            .map_or_else(|| ranges.clone(), |max| ranges.coarsened(max.get()));
        let page_size = capabilities.page_sizes.best_for(page_size);
        if wanted == self.started {
            return Ok(());
        }
        if self.started.is_empty() || capabilities.update == RangeUpdate::Live {
            return self.start(wanted, page_size);
        }
        if ranges.difference(&self.started).is_empty() {
            return Ok(());
        }
        self.restart(wanted, page_size, readers)
    }

    /// Stops the tracker, if it runs. It counts as stopped even if it says that it failed to.
    pub(super) fn stop(&mut self) -> Result<(), LogError> {
        if self.started.is_empty() {
            return Ok(());
        }
        self.started = RangeSet::default();
        self.tracker.stop().map_err(|error| self.failed(error))
    }

    /// Whether the tracker can be read without clearing.
    pub(super) fn can_peek(&self) -> bool {
        self.tracker.capabilities().peek == PeekSupport::Native
    }

    pub(super) fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        self.tracker.peek(report).map_err(|error| self.failed(error))
    }

    pub(super) fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        self.tracker
            .read_and_clear(report)
            .map_err(|error| self.failed(error))
    }

    fn start(&mut self, ranges: RangeSet, page_size: PageSize) -> Result<(), LogError> {
        self.tracker
            .start(ranges.ranges(), page_size)
            .map_err(|error| self.failed(error))?;
        (self.started, self.page_size) = (ranges, page_size);
        Ok(())
    }

    /// Changes the ranges of a tracker that has to be stopped for it, and does not know what is written meanwhile:
    /// all that it was tracking becomes due.
    fn restart(
        &mut self,
        ranges: RangeSet,
        page_size: PageSize,
        readers: &mut [Reader],
    ) -> Result<(), LogError> {
        let (before, size_before) = (self.started.clone(), self.page_size);
        // What was written until now is gone whether it stopped or not, and the next start would begin clean.
        self.stop().inspect_err(|error| lose(readers, error))?;
        let result = self.start(ranges, page_size);
        if result.is_err() {
            self.start(before.clone(), size_before)
                .inspect_err(|error| lose(readers, error))?;
        }
        for reader in readers {
            before
                .intersection(&reader.ranges)
                .ranges()
                .iter()
                .for_each(|range: &IovaRange| reader.due.mark(*range));
        }
        result
    }

    fn failed(&self, error: TrackerError) -> LogError {
        LogError::tracker_failed(self.tracker.kind(), error)
    }
}
