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
//! All levels are flat arrays, so that a look at a bit is one load from a place that its number gives. They are address
//! space at first; a page of leaves, which is a chunk of 64 lines, takes memory when a bit of the chunk is first set, and
//! keeps it. The memory is bounded: a chunk must be `backed` out of a budget before its leaves are written, and when
//! the budget is used up, a chunk without memory has a single bit in `coarse`, and all of it counts as set. So has a chunk
//! without memory that is set as a whole. Leaves of a chunk without memory read as clear; to look at them takes no more
//! than page tables, 8 bytes per chunk (256 MiB for all of 2^40 bits).
//!
//! Where the process may not have the address space for all leaves (128 GiB of it for 2^40 bits), there are only those of as
//! many chunks from the start on as the budget has, and the chunks past them never get memory.
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

use crate::sync::{AtomicU64, Mutex, Ordering};
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

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SparseBitmap {
    /// The number of bits.
    end: u64,
    root: Slab<AtomicU64>,
    groups: Slab<AtomicU64>,
    lines: Slab<AtomicU64>,
    coarse: Slab<AtomicU64>,
    /// 1 bit per chunk with memory.
    backed: Slab<AtomicU64>,
    /// In order, the words of all chunks, or of as many as there is address space for.
    leaves: Slab<AtomicU64>,
    memory: Mutex<Budget>,
    /// Held while a reader has cleared upper levels and not yet restored what it leaves below them.
    reading: Mutex<()>,
}

/// The number of chunks with memory, and how many there may be.
#[derive(Debug)]
struct Budget {
    used: u64,
    max: u64,
}

impl SparseBitmap {
    /// A bitmap of `end` clear bits with memory for at most `max_chunks` chunks of [`CHUNK_BITS`] bits.
    pub(crate) fn new(end: u64, max_chunks: u64) -> io::Result<Self> {
        let chunks = end.div_ceil(CHUNK_BITS);
        let max = max_chunks.min(chunks);
        let groups = chunks.div_ceil(WORD);
        Ok(Self {
            end,
            root: Slab::new(groups.div_ceil(WORD))?,
            groups: Slab::new(groups)?,
            lines: Slab::new(chunks)?,
            coarse: Slab::new(groups)?,
            backed: Slab::new(groups)?,
            leaves: reserve_leaves(chunks, max)?,
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
        self.is_leaf_set(bit) || self.is_coarse(bit / CHUNK_BITS)
    }

    /// Whether bit `bit` is set on its own account.
    #[inline]
    fn is_leaf_set(&self, bit: u64) -> bool {
        let leaf = self.leaves.get(index(bit / WORD));
        leaf.is_some_and(|leaf| leaf.load(Ordering::Relaxed) & bit_of(bit) != 0)
    }

    /// Whether all of the chunk counts as set.
    fn is_coarse(&self, chunk: u64) -> bool {
        self.coarse[index(chunk / WORD)].load(Ordering::SeqCst) & bit_of(chunk) != 0
    }

    /// Whether the chunk has memory for its leaves.
    #[inline]
    fn is_backed(&self, chunk: u64) -> bool {
        self.backed[index(chunk / WORD)].load(Ordering::SeqCst) & bit_of(chunk) != 0
    }

    /// The leaf word `word` of a chunk with memory.
    #[inline]
    fn leaf(&self, word: u64) -> &AtomicU64 {
        &self.leaves[index(word)]
    }

    /// The leaf words `first..=last` of chunks with memory.
    #[inline]
    fn leaves(&self, first: u64, last: u64) -> &[AtomicU64] {
        &self.leaves[index(first)..=index(last)]
    }
}

/// Address space for the leaves of `chunks` chunks, or of the first `max_backed` if there is no more.
///
/// The first ones, where guests have their memory, take it in large pages: together no more than the budget allows.
fn reserve_leaves(chunks: u64, max_backed: u64) -> io::Result<Slab<AtomicU64>> {
    let leaves = match Slab::new(chunks * CHUNK_WORDS) {
        Err(error) if max_backed < chunks => {
            tracing::warn!(%error, "little address space: the log of high addresses is coarse");
            Slab::new(max_backed * CHUNK_WORDS)?
        }
        leaves => leaves?,
    };
    leaves.prefer_large_pages(max_backed * CHUNK_WORDS);
    Ok(leaves)
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
