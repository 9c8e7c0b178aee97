//! [`Attachment`]: one device's hold on an address space.

use std::sync::Arc;

use super::{Explanation, Ioas, LogError, checked_ranges};
use crate::{DirtyTracker, IovaRange, PageSize, ReportBitmap};

/// A device attached to an [`Ioas`], until it is dropped. Dropping it stops its log.
#[derive(Debug)]
pub struct Attachment {
    ioas: Arc<Ioas>,
    id: u64,
    name: String,
    explanation: Explanation,
    tracker: Arc<dyn DirtyTracker>,
}

impl Attachment {
    pub(super) fn new(
        ioas: Arc<Ioas>,
        id: u64,
        name: &str,
        explanation: Explanation,
        tracker: Arc<dyn DirtyTracker>,
    ) -> Self {
        Self {
            ioas,
            id,
            name: name.to_owned(),
            explanation,
            tracker,
        }
    }

    /// The address space that the device is attached to.
    pub fn ioas(&self) -> &Arc<Ioas> {
        &self.ioas
    }

    /// Which tracker serves the device, why, and what else there was.
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// Starts the device's log of `ranges`, in any order; an empty list is the whole address space.
    ///
    /// The first device of the address space to start begins a log with nothing in it; a further one adds its ranges, of
    /// which those that were not started yet begin clean. Writes of *all* devices are recorded from the first START on.
    /// `page_size` is the size of the pages that reports will ask for; it matters to trackers that can track in several.
    ///
    /// # Errors
    /// [`LogError`]; the device has not started then, and the others' log goes on as it was.
    pub fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<(), LogError> {
        let ranges = checked_ranges(ranges)?;
        self.ioas.state.lock().start(self.id, ranges, page_size)
    }

    /// Stops the device's log. The log of the address space, its ranges included, ends with the last device's.
    ///
    /// # Errors
    /// [`LogError::NotStarted`]; [`LogError::TrackerFailed`] if a tracker does not stop, though the device has.
    pub fn stop(&self) -> Result<(), LogError> {
        self.ioas.state.lock().stop(self.id)
    }

    /// Whether the device has started its log.
    pub fn is_started(&self) -> bool {
        self.ioas.state.lock().group.started.contains(&self.id)
    }

    /// Marks in `report` every page of its range that any device wrote since it was last reported, and forgets it.
    ///
    /// The range may be any part of what the devices of the address space have started, holes included. It is a page of
    /// the report if any byte of it was written, and possibly if bytes close by were: see [`ReportBitmap`].
    ///
    /// # Errors
    /// [`LogError::NotStarted`] and [`LogError::RangeNotStarted`], with nothing changed. After
    /// [`LogError::TrackerFailed`] the log is lost: `report` is of no use, and further reports fail too until every
    /// device has stopped.
    pub fn report(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        if !self.is_started() {
            return Err(LogError::NotStarted);
        }
        self.ioas.report(report)
    }

    /// Gives up the log of the address space, for every reader: this device was to stop and did not, so it may write after what
    /// everybody takes for the last report.
    ///
    /// Without a log there is nothing to give up, and the next one that is started holds.
    pub fn give_up(&self) {
        let error = LogError::DeviceFailed(self.name.as_str().into());
        self.ioas.state.lock().log.give_up(&error);
    }

    /// Takes over what the device's tracker has recorded until now: it stays due whatever becomes of the device.
    ///
    /// For a device that has been stopped and is about to be reset, which may end its own log.
    pub fn gather(&self) {
        self.ioas.state.lock().log.gather(&self.tracker);
    }

    /// Whether [`report`](Self::report) of `range` would be refused. Nothing is read or forgotten.
    ///
    /// For callers that must not begin what they cannot undo, as an unmap, before they know.
    ///
    /// # Errors
    /// As of [`report`](Self::report).
    pub fn check_range(&self, range: &IovaRange) -> Result<(), LogError> {
        let state = self.ioas.state.lock();
        match state.group.reader {
            Some(reader) if state.group.started.contains(&self.id) => state.log.check(reader, range),
            _ => Err(LogError::NotStarted),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut state = self.ioas.state.lock();
        match state.stop(self.id) {
            Ok(()) | Err(LogError::NotStarted) => {}
            Err(error) => {
                tracing::error!(device = self.name, %error, "cannot stop the log of a detached device");
            }
        }
        state.log.unlink(&self.tracker);
    }
}
