//! [`Ioas`]: one guest address space, its trackers and its readers.
//!
//! An address space holds
//! - a list of **trackers**, each serving a list of devices; a report is the union of all of them;
//! - **attachments**, one per device, each with the tracker that was [selected](Selection) for it;
//! - **readers**. The attachments together are one reader, the migration: the first START clears, a later one adds its
//!   ranges, and the last STOP (or dropped attachment) ends it, so that a page is handed over once and not once per
//!   device. An [`Observer`] is another reader. What one reader reads stays due for the others.
//!
//! When a tracker fails to be read, its log is lost, and with it that of every reader: each one's reports fail
//! from then on, until it is started anew. (What the other trackers had handed over is then of no use: the
//! caller has to copy everything, as it does after every start.) Nothing short of that could keep the promise.
//!
//! What is *not* here: mappings, of which each connection has its own, and the binding of an address space to a process.

mod attachment;
mod error;
mod linked;
mod log;
mod observer;
mod reader;
mod selection;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::{IovaRange, PageSize, RangeSet, ReportBitmap, SoftwareTracker};
use log::Log;
use reader::ReaderId;

pub use attachment::Attachment;
pub use error::LogError;
pub use observer::Observer;
pub use selection::{Candidate, DeviceKind, Explanation, Selection, SelectionError, WithoutTracker};

/// The most ranges that one START may name.
pub const MAX_RANGES: usize = 1024;

/// A guest address space. See the module's documentation.
#[derive(Debug)]
pub struct Ioas {
    software: Arc<SoftwareTracker>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    log: Log,
    group: Group,
    next_attachment: u64,
}

/// The attachments that have started, and the reader that they are together.
#[derive(Debug, Default)]
struct Group {
    started: BTreeSet<u64>,
    reader: Option<ReaderId>,
}

impl Ioas {
    /// An address space without devices.
    ///
    /// # Panics
    /// If this process has no room for the software tracker's reservation; see [`Ioas::with_software_tracker`].
    pub fn new() -> Arc<Self> {
        let software = SoftwareTracker::new().expect("address space for the software tracker");
        Self::with_software_tracker(Arc::new(software))
    }

    /// An address space without devices whose emulated devices will share `software`, which nobody else reads.
    pub fn with_software_tracker(software: Arc<SoftwareTracker>) -> Arc<Self> {
        let state = State {
            log: Log::new(software.clone()),
            group: Group::default(),
            next_attachment: 0,
        };
        Arc::new(Self {
            software,
            state: Mutex::new(state),
        })
    }

    /// The tracker that all emulated devices of this address space mark.
    pub fn software_tracker(&self) -> Arc<SoftwareTracker> {
        self.software.clone()
    }

    /// Attaches a device and selects the tracker that serves it. `name` is for messages.
    ///
    /// # Errors
    /// [`SelectionError`], if nothing would record what the device writes.
    pub fn attach(self: &Arc<Self>, kind: DeviceKind, name: &str) -> Result<Attachment, SelectionError> {
        let (explanation, tracker) = selection::select(kind, name, &self.software)?;
        let mut state = self.state.lock();
        state
            .log
            .link(&tracker)
            .map_err(|source| SelectionError::NotStarted {
                device: name.to_owned(),
                source,
            })?;
        let id = state.next_attachment;
        state.next_attachment += 1;
        tracing::debug!("attached {explanation}");
        Ok(Attachment::new(self.clone(), id, name, explanation, tracker))
    }

    /// A further reader of the pages written in `ranges` from now on; an empty list is the whole address space.
    ///
    /// # Errors
    /// As of [`Attachment::start`].
    pub fn observer(
        self: &Arc<Self>,
        ranges: &[IovaRange],
        page_size: PageSize,
    ) -> Result<Observer, LogError> {
        let ranges = checked_ranges(ranges)?;
        let reader = self.state.lock().log.open(ranges, page_size)?;
        Ok(Observer::new(self.clone(), reader))
    }

    /// Moves what is due for the migration in the range of `report` to it: [`Attachment::report`] of any started device.
    ///
    /// # Errors
    /// As of [`Attachment::report`].
    pub fn report(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        let mut state = self.state.lock();
        let reader = state.group.reader.ok_or(LogError::NotStarted)?;
        state.log.read(reader, report)
    }
}

impl State {
    /// The first START opens the group's reader, a later one extends it.
    fn start(&mut self, attachment: u64, ranges: RangeSet, page_size: PageSize) -> Result<(), LogError> {
        if self.group.started.contains(&attachment) {
            return Err(LogError::AlreadyStarted);
        }
        match self.group.reader {
            Some(reader) => self.log.extend(reader, &ranges, page_size)?,
            None => self.group.reader = Some(self.log.open(ranges, page_size)?),
        }
        self.group.started.insert(attachment);
        Ok(())
    }

    /// The last STOP closes the group's reader.
    fn stop(&mut self, attachment: u64) -> Result<(), LogError> {
        if !self.group.started.remove(&attachment) {
            return Err(LogError::NotStarted);
        }
        if !self.group.started.is_empty() {
            return Ok(());
        }
        match self.group.reader.take() {
            Some(reader) => self.log.close(reader),
            None => Ok(()),
        }
    }
}

/// The set of the ranges that a START names.
fn checked_ranges(ranges: &[IovaRange]) -> Result<RangeSet, LogError> {
    if ranges.len() > MAX_RANGES {
        return Err(LogError::TooManyRanges { asked: ranges.len() });
    }
    match ranges {
        [] => Ok(RangeSet::disjoint(&[IovaRange::ALL])?),
        ranges => Ok(RangeSet::disjoint(ranges)?),
    }
}
