//! [`SparseBitmap`]: a bitmap of up to 2^40 bits that any number of threads set and one at a time reads.
//!
//! ```text
//! root    1 bit per word of groups                8 GiB of 4 KiB pages
//! groups  1 bit per chunk                       128 MiB
//! lines   1 bit per line of leaves                2 MiB
//! leaves  1 bit per bit, in lines of 8 words      4 KiB
//! ```
//!
//! A reader walks down from the root and touches what is set. The upper levels are small enough to stay in a CPU's
//! cache, so that setting a bit misses it once, at the leaf.
//!
//! Leaves get memory by the chunk of 64 lines, when a bit of the chunk is first set, and keep it; `directory` says where.
//! The memory is bounded: when the budget of chunks is used up, a chunk without memory has a single bit in
//! `coarse`, and all of it counts as set. So has a chunk without memory that is set as a whole.
//!
//! # Order
//!
//! [`set`](SparseBitmap::set) sets the leaf bit, then makes sure of each level above, from the bottom up.
//! [`take`](SparseBitmap::take) clears from the top down. Every one of these accesses is sequentially consistent, so of
//! a setter and a reader at least one sees the other's step: either the reader finds the leaf bit, or the setter finds
//! a level cleared and sets it again. Every setter looks at *every* level, even where another one has just set the
//! level below: that one may not have got further yet.
//!
//! A setter that finds its leaf bit set returns at once; the one that set it may still be on its way up. A
//! reader that runs in between leaves the bit to the next one. Whoever must see it (the page is being unmapped, the
//! devices have stopped) has waited for both setters first.
//!
//! What this module does *not* do: keep the caller's own data in order with the bits (see [`crate::Barrier`]).

mod set;
mod slab;
mod walk;

use std::io;

use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use slab::Slab;

pub(crate) use set::runs;

/// Bits of a word.
const WORD: u64 = 64;
/// Leaf words of a line: as many as share a cache line. (Two in a model, for loom's sake.)
pub(crate) const LINE_WORDS: u64 = if cfg!(loom) { 2 } else { 8 };
/// Bits of a line.
const LINE_BITS: u64 = LINE_WORDS * WORD;
/// Leaf words of a chunk, whose lines share a word of the level above.
const CHUNK_WORDS: u64 = WORD * LINE_WORDS;
/// Bits of a chunk.
pub(crate) const CHUNK_BITS: u64 = CHUNK_WORDS * WORD;

/// The leaf words of a line.
pub(crate) type Line = [u64; LINE_WORDS as usize];

/// Takes the set bits that a reader finds.
pub(crate) trait BitSink {
    /// What is set in `words` is set; the first one holds the bits from `64 * first_word` on.
    fn line(&mut self, first_word: u64, words: &Line);
    /// The bits `first..=last` are all set.
    fn span(&mut self, first: u64, last: u64);
}

/// A [`BitSink`] that forgets what it is given.
pub(crate) struct Discard;

impl BitSink for Discard {
    fn line(&mut self, _first_word: u64, _words: &Line) {}
    fn span(&mut self, _first: u64, _last: u64) {}
}

/// The memory of a chunk.
#[derive(Debug)]
#[repr(transparent)]
struct Chunk([AtomicU64; CHUNK_WORDS as usize]);

impl Default for Chunk {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SparseBitmap {
    /// The number of bits.
    end: u64,
    root: Slab<AtomicU64>,
    groups: Slab<AtomicU64>,
    lines: Slab<AtomicU64>,
    coarse: Slab<AtomicU64>,
    /// For each chunk the number of its memory, given in ascending order. Number 0 belongs to no chunk and stays all
    /// clear, so that a look at a bit of a chunk without memory needs no case of its own.
    directory: Slab<AtomicU32>,
    leaves: Slab<Chunk>,
    memory: Mutex<Budget>,
    /// Held while a reader has cleared upper levels and not yet restored what it leaves below them.
    reading: Mutex<()>,
}

/// The chunk memories handed out, and how many there are.
#[derive(Debug)]
struct Budget {
    used: u32,
    max: u32,
}

impl SparseBitmap {
    /// A bitmap of `end` clear bits with memory for at most `max_chunks` chunks of [`CHUNK_BITS`] bits.
    pub(crate) fn new(end: u64, max_chunks: u32) -> io::Result<Self> {
        let chunks = end.div_ceil(CHUNK_BITS);
        let max = u32::try_from(chunks).map_or(max_chunks, |chunks| chunks.min(max_chunks));
        let groups = chunks.div_ceil(WORD);
        Ok(Self {
            end,
            root: Slab::new(groups.div_ceil(WORD))?,
            groups: Slab::new(groups)?,
            lines: Slab::new(chunks)?,
            coarse: Slab::new(groups)?,
            directory: Slab::new(chunks)?,
            leaves: Slab::dense(u64::from(max) + 1)?,
            memory: Mutex::new(Budget { used: 0, max }),
            reading: Mutex::new(()),
        })
    }

    /// The number of bits.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether bit `bit` is set. Bits past the end never are.
    pub(crate) fn test(&self, bit: u64) -> bool {
        if bit >= self.end {
            return false;
        }
        let chunk = bit / CHUNK_BITS;
        self.leaf(self.number(chunk), bit / WORD).load(Ordering::SeqCst) & bit_of(bit) != 0
            || self.is_coarse(chunk)
    }

    /// Whether all of the chunk counts as set.
    fn is_coarse(&self, chunk: u64) -> bool {
        self.coarse[index(chunk / WORD)].load(Ordering::SeqCst) & bit_of(chunk) != 0
    }

    /// The number of the chunk's memory, 0 if it has none.
    #[inline]
    fn number(&self, chunk: u64) -> u64 {
        u64::from(self.directory[index(chunk)].load(Ordering::Acquire))
    }

    /// The leaf word `word` (counted from the start of the bitmap) of the chunk with memory `number`.
    #[inline]
    fn leaf(&self, number: u64, word: u64) -> &AtomicU64 {
        &self.leaves[index(number)].0[index(word % CHUNK_WORDS)]
    }

    /// The leaf words `first..=last`, which lie in the chunk with memory `number`.
    #[inline]
    fn leaves(&self, number: u64, first: u64, last: u64) -> &[AtomicU64] {
        let at = index(first % CHUNK_WORDS);
        &self.leaves[index(number)].0[at..=at + index(last - first)]
    }
}

/// An index into an array that was made with a length that fits.
#[inline]
fn index(value: u64) -> usize {
    value as usize
}

/// The bit of `value` in its word.
#[inline]
fn bit_of(value: u64) -> u64 {
    1 << (value % WORD)
}

/// The bits of word `word` that lie in `first..=last`; at least one of them does.
#[inline]
fn span_mask(word: u64, first: u64, last: u64) -> u64 {
    let low = first.saturating_sub(word * WORD);
    let high = (last - word * WORD).min(WORD - 1);
    (u64::MAX << low) & (u64::MAX >> (WORD - 1 - high))
}

/// The numbers of the set bits of `word`, ascending.
fn set_bits(mut word: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
        word &= word - 1;
        Some(bit)
    })
}
