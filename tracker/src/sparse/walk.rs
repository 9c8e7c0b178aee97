//! Reading bits: down from the root, along what is set.

use super::{BitSink, CHUNK_BITS, CHUNK_SUMMARIES, SparseBitmap, WORD, bit_of, index, set_bits, span_mask};
use crate::sync::{AtomicU64, Ordering, level_fence};

/// What a walk does to the bits it meets.
trait Visit {
    /// The bits of `word` under `mask`.
    fn fetch(word: &AtomicU64, mask: u64) -> u64;
    /// Whether a level was cleared on the way down, and must be raised again above what is left.
    const CLEARS: bool;
}

/// Clears the bits it meets.
enum Take {}

impl Visit for Take {
    #[inline]
    fn fetch(word: &AtomicU64, mask: u64) -> u64 {
        if mask == u64::MAX {
            return word.swap(0, Ordering::SeqCst);
        }
        word.fetch_and(!mask, Ordering::SeqCst) & mask
    }

    const CLEARS: bool = true;
}

/// Leaves the bits as they are.
enum Peek {}

impl Visit for Peek {
    #[inline]
    fn fetch(word: &AtomicU64, mask: u64) -> u64 {
        word.load(Ordering::SeqCst) & mask
    }

    const CLEARS: bool = false;
}

impl SparseBitmap {
    /// Clears the set bits among `first..=last` and gives them to `sink`.
    ///
    /// A chunk that is only known to be set as a whole is given up to `sink` as far as it lies in the span, and is
    /// cleared only when all of it does.
    pub(crate) fn take(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        self.walk::<Take>(first, last, sink);
    }

    /// Gives the set bits among `first..=last` to `sink`.
    pub(crate) fn peek(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        self.walk::<Peek>(first, last, sink);
    }

    fn walk<V: Visit>(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        let last = last.min(self.end.saturating_sub(1));
        if first > last || first >= self.end {
            return;
        }
        let _exclusive = self.reading.lock();
        let (first_group, last_group) = (first / CHUNK_BITS / WORD, last / CHUNK_BITS / WORD);
        for root in first_group / WORD..=last_group / WORD {
            let groups = &self.root[index(root)];
            let found = groups.load(Ordering::SeqCst) & span_mask(root, first_group, last_group);
            for bit in set_bits(found) {
                V::fetch(groups, bit_of(bit));
                level_fence();
                self.walk_group::<V>(root * WORD + bit, first, last, sink);
            }
        }
    }

    fn walk_group<V: Visit>(&self, group: u64, first: u64, last: u64, sink: &mut impl BitSink) {
        let chunks = &self.groups[index(group)];
        let found = V::fetch(chunks, span_mask(group, first / CHUNK_BITS, last / CHUNK_BITS));
        level_fence();
        for bit in set_bits(found) {
            let part = self.part_of(group * WORD + bit, first, last);
            self.walk_coarse::<V>(&part, sink);
            self.walk_leaves::<V>(&part, sink);
            if V::CLEARS && !part.is_whole() && self.has_bits(part.chunk) {
                self.raise(part.chunk);
            }
        }
        if V::CLEARS && chunks.load(Ordering::SeqCst) != 0 {
            self.raise_root(group);
        }
    }

    /// Gives a chunk without memory to `sink` if its one bit is set.
    fn walk_coarse<V: Visit>(&self, part: &Part, sink: &mut impl BitSink) {
        let coarse = &self.coarse[index(part.chunk / WORD)];
        if coarse.load(Ordering::SeqCst) & bit_of(part.chunk) == 0 {
            return;
        }
        if part.is_whole() {
            V::fetch(coarse, bit_of(part.chunk));
        }
        sink.span(part.first, part.last);
    }

    fn walk_leaves<V: Visit>(&self, part: &Part, sink: &mut impl BitSink) {
        let number = self.number(part.chunk);
        let (first_word, last_word) = (part.first / WORD, part.last / WORD);
        for summary in first_word / WORD..=last_word / WORD {
            let words = self.summary(number, summary * WORD);
            let mask = span_mask(summary, first_word, last_word);
            if words.load(Ordering::SeqCst) & mask == 0 {
                continue;
            }
            let found = V::fetch(words, mask);
            level_fence();
            for bit in set_bits(found) {
                self.walk_leaf::<V>(number, summary * WORD + bit, part, sink);
            }
        }
    }

    #[inline]
    fn walk_leaf<V: Visit>(&self, number: u64, word: u64, part: &Part, sink: &mut impl BitSink) {
        let (leaf, mask) = (self.leaf(number, word), span_mask(word, part.first, part.last));
        let bits = V::fetch(leaf, mask);
        if bits != 0 {
            sink.word(word, bits);
        }
        if V::CLEARS && mask != u64::MAX && leaf.load(Ordering::SeqCst) != 0 {
            self.summary(number, word)
                .fetch_or(bit_of(word), Ordering::SeqCst);
        }
    }

    /// Whether anything may be set in `chunk`.
    fn has_bits(&self, chunk: u64) -> bool {
        let first = index(self.number(chunk) * CHUNK_SUMMARIES);
        self.summaries[first..first + index(CHUNK_SUMMARIES)]
            .iter()
            .any(|word| word.load(Ordering::SeqCst) != 0)
            || self.coarse[index(chunk / WORD)].load(Ordering::SeqCst) & bit_of(chunk) != 0
    }

    /// The part of `chunk` that lies in `first..=last`.
    fn part_of(&self, chunk: u64, first: u64, last: u64) -> Part {
        let start = chunk * CHUNK_BITS;
        let chunk_last = (start + CHUNK_BITS).min(self.end) - 1;
        Part {
            chunk,
            first: first.max(start),
            last: last.min(chunk_last),
            chunk_first: start,
            chunk_last,
        }
    }
}

/// The bits `first..=last` of a chunk.
struct Part {
    chunk: u64,
    first: u64,
    last: u64,
    chunk_first: u64,
    chunk_last: u64,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.first == self.chunk_first && self.last == self.chunk_last
    }
}
