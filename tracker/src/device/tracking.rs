//! The reader's side of [`DeviceTracker`].

use std::io;

use super::{DeviceTracker, Running, State, limits};
use crate::found;
use crate::granules::GRANULE;
use crate::{
    Capabilities, DirtyTracker, IovaRange, PageSize, PeekSupport, RangeControl, RangeSet, RangeUpdate,
    ReportBitmap, TrackerError, TrackerKind,
};

/// The most pages that are read at once: a bitmap of 1 MiB.
const MOST_AT_ONCE: u64 = 1 << 23;

/// The most pages that are told apart in one read. Of 4 KiB each, 32 TiB: what is longer is no memory but all that there might be.
const MOST_APART: u64 = MOST_AT_ONCE << 10;

/// The size of the pages of what is longer, of which a bitmap has all.
const COARSE: PageSize = PageSize::SIZE_1G;

impl DirtyTracker for DeviceTracker {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Device
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            control: RangeControl::PerRange,
            page_sizes: self.page_sizes,
            max_ranges: None,
            update: RangeUpdate::Restart,
            peek: PeekSupport::None,
        }
    }

    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<(), TrackerError> {
        if !self.page_sizes.contains(page_size) {
            return Err(TrackerError::PageSize(page_size));
        }
        let wanted = RangeSet::disjoint(ranges)?;
        let mut state = self.state.lock();
        if state.running.is_some() {
            return Err(TrackerError::Running);
        }
        let taken = limits::start(&*self.log, &wanted, page_size).map_err(failed)?;
        if taken > page_size {
            // Its pages stick out of the ranges, which nobody says can be read.
            let _ = self.log.stop();
            return Err(failed(io::Error::other(format!(
                "the device tracks in pages of {taken} bytes now, and not of {page_size} as before"
            ))));
        }
        state.kept.discard(&IovaRange::ALL);
        state.running = Some(Running {
            started: wanted,
            page_size: taken.max(GRANULE),
            lost: None,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        match self.state.lock().running.take() {
            Some(_) => self.log.stop().map_err(failed),
            None => Ok(()),
        }
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        let mut guard = self.state.lock();
        let State { running, kept, words } = &mut *guard;
        let range = report.range();
        let running = match running {
            Some(running) if running.started.contains(&range) => running,
            _ => return Err(TrackerError::NotStarted(range)),
        };
        if let Some(why) = &running.lost {
            return Err(TrackerError::Failed(format!("pages were lost: {why}").into()));
        }
        for (piece, page_size) in reads(&range, running.page_size) {
            let read = match report.words_of(&piece, page_size) {
                Some(words) => self.log.report(piece, page_size, words),
                None => self.read_by_way_of(words, &piece, page_size).inspect(|()| {
                    if range.contains(&piece) {
                        found::give(words, &piece, page_size, report);
                    } else {
                        found::give(words, &piece, page_size, &mut &*kept);
                    }
                }),
            };
            if let Err(error) = read {
                running.lost = Some(error.to_string());
                return Err(failed(error));
            }
        }
        kept.take(&range, report);
        Ok(())
    }

    fn peek(&self, _report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        Err(TrackerError::NoPeek)
    }
}

impl DeviceTracker {
    /// Reads what is logged of `piece` into `words`, which become as many as that takes.
    fn read_by_way_of(&self, words: &mut Vec<u64>, piece: &IovaRange, page_size: PageSize) -> io::Result<()> {
        let pages = piece.len().div_ceil(page_size.bytes());
        words.clear();
        words.resize(pages.div_ceil(64) as usize, 0);
        self.log.report(*piece, page_size, words)
    }
}

impl Drop for DeviceTracker {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "a device goes on logging its DMA");
        }
    }
}

/// What is read for `range`, and in pages of which size.
fn reads(range: &IovaRange, page_size: PageSize) -> impl Iterator<Item = (IovaRange, PageSize)> {
    parts(range, page_size)
        .into_iter()
        .flat_map(|(part, page_size)| pieces(part, page_size).map(move |piece| (piece, page_size)))
}

/// `range` as one part if it is not too long, or else with the whole coarse pages in it as a part of their own.
fn parts(range: &IovaRange, page_size: PageSize) -> Vec<(IovaRange, PageSize)> {
    if range.len() >> page_size.shift() <= MOST_APART {
        return vec![(*range, page_size)];
    }
    let within = COARSE.bytes() - 1;
    let (first, last) = (range.start().get(), range.last().get());
    // No overflow: the range is longer than many coarse pages.
    let coarse_first = (first + within) & !within;
    let coarse_last = (last - within) | within;
    let head = (first < coarse_first).then(|| (IovaRange::of(first, coarse_first - 1), page_size));
    let coarse = (IovaRange::of(coarse_first, coarse_last), COARSE);
    let tail = (coarse_last < last).then(|| (IovaRange::of(coarse_last + 1, last), page_size));
    [head, Some(coarse), tail].into_iter().flatten().collect()
}

/// The whole pages that `range` touches, some at a time.
fn pieces(range: IovaRange, page_size: PageSize) -> impl Iterator<Item = IovaRange> {
    let within = page_size.bytes() - 1;
    let (first, last) = (range.start().get() & !within, range.last().get() | within);
    let step = MOST_AT_ONCE << page_size.shift();
    let starts = std::iter::successors(Some(first), move |start| {
        start.checked_add(step).filter(|next| *next <= last)
    });
    starts.map(move |start| IovaRange::of(start, last.min(start.saturating_add(step - 1))))
}

fn failed(error: io::Error) -> TrackerError {
    TrackerError::Failed(Box::new(error))
}
