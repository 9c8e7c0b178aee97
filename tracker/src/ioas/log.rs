//! [`Log`]: the trackers of an address space, and what its readers have coming from them.
//!
//! The trackers run on the union of the readers' ranges. With one reader a read goes straight from the trackers into
//! its report. With several, what comes out of a tracker is first noted as due for every reader that it concerns.

use std::io;
use std::sync::Arc;

use super::LogError;
use super::linked::Linked;
use super::reader::{Reader, ReaderId};
use crate::granules::Granules;
use crate::sparse::{BitSink, Line};
use crate::{DirtyTracker, IovaRange, PageSize, RangeSet, ReportBitmap};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Log {
    trackers: Vec<Linked>,
    readers: Vec<Reader>,
    next_reader: u64,
    /// The union of the readers' ranges.
    running: RangeSet,
    /// The smallest page size that a reader asked for.
    page_size: PageSize,
}

impl Log {
    /// The log of an address space whose first tracker, which stays, is `tracker`.
    pub(super) fn new(tracker: Arc<dyn DirtyTracker>) -> Self {
        Self {
            trackers: vec![Linked::new(tracker)],
            readers: Vec::new(),
            next_reader: 0,
            running: RangeSet::default(),
            page_size: PageSize::SIZE_4K,
        }
    }

    /// Adds a device to those that `tracker` serves, and the tracker to the list with the first one.
    pub(super) fn link(&mut self, tracker: &Arc<dyn DirtyTracker>) -> Result<(), LogError> {
        if let Some(linked) = self.trackers.iter_mut().find(|linked| linked.is(tracker)) {
            linked.devices += 1;
            return Ok(());
        }
        let mut linked = Linked::new(tracker.clone());
        linked.devices = 1;
        linked.set_ranges(&self.running, self.page_size, &mut [])?;
        self.trackers.push(linked);
        Ok(())
    }

    /// Takes a device from those that `tracker` serves. A tracker that serves none leaves the list, and
    /// what it has recorded stays due.
    pub(super) fn unlink(&mut self, tracker: &Arc<dyn DirtyTracker>) {
        let Some(position) = self.trackers.iter().position(|linked| linked.is(tracker)) else {
            return;
        };
        self.trackers[position].devices -= 1;
        // The first one is the address space's own and stays.
        if position == 0 || self.trackers[position].devices > 0 {
            return;
        }
        self.gather_from(position);
        let mut linked = self.trackers.remove(position);
        if let Err(error) = linked.stop() {
            tracing::error!(%error, "a tracker that serves no device any more does not stop");
        }
    }

    /// Takes what `tracker` has recorded until now, which stays due whatever becomes of the tracker.
    pub(super) fn gather(&mut self, tracker: &Arc<dyn DirtyTracker>) {
        if let Some(position) = self.trackers.iter().position(|linked| linked.is(tracker)) {
            self.gather_from(position);
        }
    }

    fn gather_from(&mut self, position: usize) {
        for range in self.running.ranges() {
            // A failure is every reader's, and they are told when they read: nobody can try again.
            if let Err(error) = spread(&self.trackers[position..=position], &mut self.readers, range) {
                return lose(&mut self.readers, &error);
            }
        }
    }

    /// Begins the log of a new reader.
    pub(super) fn open(&mut self, ranges: RangeSet, page_size: PageSize) -> Result<ReaderId, LogError> {
        let due =
            Granules::of_whole_space().map_err(|error: io::Error| LogError::OutOfMemory(Arc::new(error)))?;
        self.grow(&ranges, page_size)?;
        let id = ReaderId(self.next_reader);
        self.next_reader += 1;
        self.readers.push(Reader {
            id,
            ranges,
            due,
            lost: None,
        });
        Ok(id)
    }

    /// Adds ranges to the log of a reader. What it has not started before begins clean.
    pub(super) fn extend(
        &mut self,
        id: ReaderId,
        ranges: &RangeSet,
        page_size: PageSize,
    ) -> Result<(), LogError> {
        let Some(position) = self.position(id) else {
            return Err(LogError::NotStarted);
        };
        if let Some(lost) = &self.readers[position].lost {
            return Err(lost.clone());
        }
        let added = ranges.difference(&self.readers[position].ranges);
        self.grow(&added, page_size)?;
        let reader = &mut self.readers[position];
        for range in added.ranges() {
            reader.due.discard(range);
        }
        reader.ranges = reader.ranges.union(ranges);
        Ok(())
    }

    /// Ends the log of a reader. The trackers go on for the others.
    pub(super) fn close(&mut self, id: ReaderId) -> Result<(), LogError> {
        self.readers.retain(|reader| reader.id != id);
        self.running = self
            .readers
            .iter()
            .fold(RangeSet::default(), |all, reader| all.union(&reader.ranges));
        let mut result = Ok(());
        for linked in &mut self.trackers {
            // Each one is told, whether or not another fails.
            result = result.and(linked.set_ranges(&self.running, self.page_size, &mut self.readers));
        }
        result
    }

    /// Fails every reader, as pages may be missing from what it will be told.
    pub(super) fn give_up(&mut self, error: &LogError) {
        if !self.readers.is_empty() {
            lose(&mut self.readers, error);
        }
    }

    /// Whether [`read`](Self::read) of `range` would be refused, with nothing read.
    pub(super) fn check(&self, id: ReaderId, range: &IovaRange) -> Result<(), LogError> {
        self.checked(id, range).map(drop)
    }

    /// Moves what is due for a reader to `report`.
    pub(super) fn read(&mut self, id: ReaderId, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        let range = report.range();
        let position = self.checked(id, &range)?;
        let others = self
            .readers
            .iter()
            .any(|reader| reader.id != id && reader.reaches(&range));
        if others {
            spread(&self.trackers, &mut self.readers, &range)?;
        } else {
            collect(&self.trackers, &mut self.readers, report)?;
        }
        self.readers[position].due.take(&range, report);
        Ok(())
    }

    /// Copies what is due for a reader to `report`.
    pub(super) fn peek(&mut self, id: ReaderId, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        let range = report.range();
        let position = self.checked(id, &range)?;
        for linked in &self.trackers {
            if linked.can_peek() {
                linked.peek(report)?;
            } else {
                spread(std::slice::from_ref(linked), &mut self.readers, &range)?;
            }
        }
        self.readers[position].due.peek(&range, report);
        Ok(())
    }

    /// The position of a reader that may be told of `range`.
    fn checked(&self, id: ReaderId, range: &IovaRange) -> Result<usize, LogError> {
        let position = self.position(id).ok_or(LogError::NotStarted)?;
        self.readers[position].check(range)?;
        Ok(position)
    }

    fn position(&self, id: ReaderId) -> Option<usize> {
        self.readers.iter().position(|reader| reader.id == id)
    }

    /// Makes the trackers run on `added` as well, for a reader for which it is to begin clean.
    fn grow(&mut self, added: &RangeSet, page_size: PageSize) -> Result<(), LogError> {
        // What others have coming from there must not be handed to the new reader.
        for range in added.intersection(&self.running).ranges() {
            spread(&self.trackers, &mut self.readers, range)?;
        }
        let finest = if self.readers.is_empty() {
            page_size
        } else {
            page_size.min(self.page_size)
        };
        let grown = self.running.union(added);
        for index in 0..self.trackers.len() {
            if let Err(error) = self.trackers[index].set_ranges(&grown, finest, &mut self.readers) {
                self.shrink_back(index);
                return Err(error);
            }
        }
        (self.running, self.page_size) = (grown, finest);
        Ok(())
    }

    /// Undoes what [`grow`](Self::grow) did to the first `changed` trackers.
    fn shrink_back(&mut self, changed: usize) {
        for linked in &mut self.trackers[..changed] {
            if let Err(error) = linked.set_ranges(&self.running, self.page_size, &mut self.readers) {
                tracing::warn!(%error, "a tracker goes on with more ranges than are started");
            }
        }
    }
}

/// Reads `trackers` into the report of the only reader that its range concerns.
fn collect(
    trackers: &[Linked],
    readers: &mut [Reader],
    report: &mut ReportBitmap<'_>,
) -> Result<(), LogError> {
    for linked in trackers {
        linked
            .read_and_clear(report)
            .inspect_err(|error| lose(readers, error))?;
    }
    Ok(())
}

/// Reads `range` from `trackers` and notes what is found as due for every reader that the range concerns.
fn spread(trackers: &[Linked], readers: &mut [Reader], range: &IovaRange) -> Result<(), LogError> {
    let found = match Granules::of_whole_space() {
        Ok(found) => found,
        // Nothing has been read yet, and nothing is lost.
        Err(error) => return Err(LogError::OutOfMemory(Arc::new(error))),
    };
    let mut report = ReportBitmap::into_granules(*range, &found);
    collect(trackers, readers, &mut report)?;
    let concerned = readers
        .iter()
        .filter(|reader| reader.reaches(range))
        .map(|reader| &reader.due)
        .collect();
    found.take_all(&mut Everyone(concerned));
    Ok(())
}

/// From now on every reader's reports fail: pages may be missing from them.
pub(super) fn lose(readers: &mut [Reader], error: &LogError) {
    tracing::error!(%error, "the dirty log is lost");
    for reader in readers {
        reader.lost.get_or_insert_with(|| error.clone());
    }
}

/// Gives each of several readers what it is given.
struct Everyone<'a>(Vec<&'a Granules>);

impl BitSink for Everyone<'_> {
    fn line(&mut self, first_word: u64, words: &Line) {
        for mut due in self.0.iter().copied() {
            due.line(first_word, words);
        }
    }

    fn span(&mut self, first: u64, last: u64) {
        for mut due in self.0.iter().copied() {
            due.span(first, last);
        }
    }
}
