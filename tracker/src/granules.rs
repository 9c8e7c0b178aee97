//! [`Granules`]: a bitmap of a whole address space, one bit per 4 KiB of IOVA.

use std::io;

use crate::sparse::{BitSink, CHUNK_BITS, Discard, Line, SparseBitmap};
use crate::{IOVA_END, Iova, IovaRange, PageSize};

/// The bytes that one bit stands for.
pub(crate) const GRANULE: PageSize = PageSize::SIZE_4K;

/// The bytes that one bit stands for where memory has run out.
const COARSE_BYTES: u64 = CHUNK_BITS * GRANULE.bytes();

/// Memory for exact bits of 8 TiB: 256 MiB, if bits are set all over it.
pub(crate) const DEFAULT_EXACT_BYTES: u64 = 8 << 40;

/// A set of granules that any thread may add to.
#[derive(Debug)]
pub(crate) struct Granules {
    bits: SparseBitmap,
}

impl Granules {
    /// The granules below `iova_end`, exact for at least `exact_bytes` of them.
    pub(crate) fn new(iova_end: u64, exact_bytes: u64) -> io::Result<Self> {
        let chunks = exact_bytes.div_ceil(COARSE_BYTES);
        Ok(Self {
            bits: SparseBitmap::new(iova_end.div_ceil(GRANULE.bytes()), chunks)?,
        })
    }

    /// All granules that can be tracked.
    pub(crate) fn of_whole_space() -> io::Result<Self> {
        Self::new(IOVA_END, DEFAULT_EXACT_BYTES)
    }

    /// Adds the granules that `range` touches.
    #[inline]
    pub(crate) fn mark(&self, range: IovaRange) {
        let (first, last) = (first_touched(&range), last_touched(&range));
        if first == last {
            self.bits.set(first);
        } else {
            self.bits.set_span(first, last);
        }
    }

    /// Adds the granule of `iova`.
    #[inline]
    pub(crate) fn mark_page(&self, iova: Iova) {
        self.bits.set(iova.get() >> GRANULE.shift());
    }

    /// Whether the granule of `iova` is in the set.
    pub(crate) fn is_marked(&self, iova: Iova) -> bool {
        self.bits.test(iova.get() >> GRANULE.shift())
    }

    /// Gives the granules that touch `range` to `sink`, and removes those that lie in it as a whole.
    ///
    /// A granule that sticks out stays: it may have been written where `range` does not reach.
    pub(crate) fn take(&self, range: &IovaRange, sink: &mut impl BitSink) {
        let whole = whole_granules(range);
        if let Some((first, last)) = whole {
            self.bits.take(first, last, sink);
        }
        let (first, last) = (first_touched(range), last_touched(range));
        let sticks_out = |granule: u64| whole.is_none_or(|(first, last)| granule < first || granule > last);
        if sticks_out(first) {
            self.bits.peek(first, first, sink);
        }
        if last != first && sticks_out(last) {
            self.bits.peek(last, last, sink);
        }
    }

    /// Moves all granules to `sink`.
    pub(crate) fn take_all(&self, sink: &mut impl BitSink) {
        self.bits.take(0, self.bits.end().saturating_sub(1), sink);
    }

    /// Gives the granules that touch `range` to `sink`.
    pub(crate) fn peek(&self, range: &IovaRange, sink: &mut impl BitSink) {
        self.bits.peek(first_touched(range), last_touched(range), sink);
    }

    /// Removes the granules that lie in `range` as a whole.
    pub(crate) fn discard(&self, range: &IovaRange) {
        if let Some((first, last)) = whole_granules(range) {
            self.bits.take(first, last, &mut Discard);
        }
    }
}

/// Adds the granules it is given.
impl BitSink for &Granules {
    fn line(&mut self, first_word: u64, words: &Line) {
        (&self.bits).line(first_word, words);
    }

    fn span(&mut self, first: u64, last: u64) {
        (&self.bits).span(first, last);
    }
}

/// The bytes of the granules `first..=last`.
pub(crate) fn bytes_of(first: u64, last: u64) -> IovaRange {
    IovaRange::of(
        first << GRANULE.shift(),
        (last << GRANULE.shift()) + (GRANULE.bytes() - 1),
    )
}

fn first_touched(range: &IovaRange) -> u64 {
    range.start().get() >> GRANULE.shift()
}

fn last_touched(range: &IovaRange) -> u64 {
    range.last().get() >> GRANULE.shift()
}

/// The first and the last granule that lie in `range` as a whole, if any does.
fn whole_granules(range: &IovaRange) -> Option<(u64, u64)> {
    let first = range.start().get().div_ceil(GRANULE.bytes());
    let end = match range.last().checked_add(1) {
        Some(end) => end.get() >> GRANULE.shift(),
        None => 1 << (u64::BITS - GRANULE.shift()),
    };
    (first < end).then(|| (first, end - 1))
}
