//! [`IommuTracker`].

use std::io;
use std::sync::Arc;

use super::kernel::Tracking;
use super::state::{Core, Log, State};
use crate::granules::GRANULE;
use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PageSizes, PeekSupport, RangeControl, RangeSet,
    RangeUpdate, ReportBitmap, TrackerError, TrackerKind,
};

/// The dirty bits of a [`KernelIoas`](super::KernelIoas)'s page tables, as one tracker.
///
/// After a read that failed, every further one fails until the tracker is stopped.
#[derive(Debug)]
pub struct IommuTracker {
    core: Arc<Core>,
}

impl IommuTracker {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Reads what is due in the report's range by `read`, unless pages may be missing.
    fn read(
        &self,
        report: &mut ReportBitmap<'_>,
        read: impl FnOnce(&Core, &State, &mut ReportBitmap<'_>) -> io::Result<()>,
        failure: Failure,
    ) -> Result<(), TrackerError> {
        let mut state = self.core.state.lock();
        check(&state, &report.range())?;
        let result = read(&self.core, &state, report);
        if let (Err(error), Failure::Loses, Some(log)) = (&result, failure, &mut state.log) {
            log.lost = Some(error.to_string());
        }
        result.map_err(failed)
    }
}

/// What a read that fails leaves behind.
#[derive(Clone, Copy)]
enum Failure {
    /// Bits may have been cleared and not handed over.
    Loses,
    /// Everything as it was.
    Keeps,
}

impl DirtyTracker for IommuTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Iommu
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
        let mut guard = self.core.state.lock();
        let state = &mut *guard;
        let Some(log) = &mut state.log else {
            self.core.set_tracking(state, Tracking::On).map_err(failed)?;
            // Switching on has cleared what the page tables had.
            state.kept.discard(&IovaRange::ALL);
            state.log = Some(Log {
                started: wanted,
                lost: None,
            });
            return Ok(());
        };
        let added = wanted.difference(&log.started);
        let discarded = added
            .ranges()
            .iter()
            .try_for_each(|range| self.core.discard(state, range));
        // Bits of what was started before may have been on their way to what is kept.
        let Some(log) = &mut state.log else { return Ok(()) };
        if let Err(error) = discarded {
            log.lost = Some(error.to_string());
            return Err(failed(error));
        }
        log.started = wanted;
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        let mut state = self.core.state.lock();
        if state.log.take().is_none() {
            return Ok(());
        }
        self.core.set_tracking(&state, Tracking::Off).map_err(failed)
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.read(report, Core::take, Failure::Loses)
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        self.read(report, Core::peek, Failure::Keeps)
    }
}

/// Whether `range` can be read.
fn check(state: &State, range: &IovaRange) -> Result<(), TrackerError> {
    match &state.log {
        Some(log) if log.started.contains(range) => match &log.lost {
            Some(why) => Err(TrackerError::Failed(format!("pages were lost: {why}").into())),
            None => Ok(()),
        },
        _ => Err(TrackerError::NotStarted(*range)),
    }
}

fn failed(error: io::Error) -> TrackerError {
    TrackerError::Failed(Box::new(error))
}
