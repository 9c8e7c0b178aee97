//! Setting bits: the hot path of every device.

use super::{
    BitSink, CHUNK_BITS, CHUNK_WORDS, LINE_WORDS, Line, SparseBitmap, WORD, bit_of, index, set_bits,
    span_mask,
};
use crate::sync::{Ordering, level_fence};

impl SparseBitmap {
    /// Sets bit `bit`, or does nothing past the end.
    #[inline]
    pub(crate) fn set(&self, bit: u64) {
        if !self.is_leaf_set(bit) {
            self.set_clear(bit);
        }
    }

    /// As [`set`](Self::set), for a bit that was clear a moment ago.
    #[inline(never)]
    fn set_clear(&self, bit: u64) {
        if bit < self.end {
            self.set_word(bit / WORD, bit_of(bit));
        }
    }

    /// Sets the bits `first..=last`, as far as they lie before the end.
    #[inline(never)]
    pub(crate) fn set_span(&self, first: u64, last: u64) {
        if first >= self.end {
            return;
        }
        let last = last.min(self.end - 1);
        let mut from = first;
        for chunk in first / CHUNK_BITS..=last / CHUNK_BITS {
            let chunk_last = chunk * CHUNK_BITS + (CHUNK_BITS - 1);
            self.set_in_chunk(chunk, from, last.min(chunk_last));
            from = chunk_last + 1;
        }
    }

    /// Sets the bits `mask` of the leaf word `word`.
    #[inline]
    pub(super) fn set_word(&self, word: u64, mask: u64) {
        let chunk = word / CHUNK_WORDS;
        if !self.has_memory(chunk) {
            return self.set_coarse(chunk);
        }
        self.leaf(word).fetch_or(mask, Ordering::SeqCst);
        self.raise(chunk, bit_of(word / LINE_WORDS));
    }

    /// Sets the bits `first..=last`, which all lie in `chunk`.
    fn set_in_chunk(&self, chunk: u64, first: u64, last: u64) {
        let is_whole = last - first == CHUNK_BITS - 1;
        if (is_whole && !self.is_backed(chunk)) || !self.has_memory(chunk) {
            return self.set_coarse(chunk);
        }
        let (first_word, last_word) = (first / WORD, last / WORD);
        let leaves = self.leaves(first_word, last_word);
        let mut lines = 0;
        for (word, leaf) in (first_word..).zip(leaves) {
            let mask = span_mask(word, first, last);
            if leaf.load(Ordering::Relaxed) & mask != mask {
                leaf.fetch_or(mask, Ordering::SeqCst);
                lines |= bit_of(word / LINE_WORDS);
            }
        }
        if lines != 0 {
            self.raise(chunk, lines);
        }
    }

    /// Makes sure that the levels above lead to the lines `lines` of `chunk`.
    #[inline]
    pub(super) fn raise(&self, chunk: u64, lines: u64) {
        level_fence();
        let level = &self.lines[index(chunk)];
        if level.load(Ordering::SeqCst) & lines != lines {
            level.fetch_or(lines, Ordering::SeqCst);
        }
        self.raise_group(chunk);
    }

    /// Makes sure that the levels above lead to `chunk`.
    #[inline]
    pub(super) fn raise_group(&self, chunk: u64) {
        level_fence();
        let level = &self.groups[index(chunk / WORD)];
        if level.load(Ordering::SeqCst) & bit_of(chunk) == 0 {
            level.fetch_or(bit_of(chunk), Ordering::SeqCst);
        }
        self.raise_root(chunk / WORD);
    }

    /// Makes sure that the root leads to `group`.
    #[inline]
    pub(super) fn raise_root(&self, group: u64) {
        level_fence();
        let level = &self.root[index(group / WORD)];
        if level.load(Ordering::SeqCst) & bit_of(group) == 0 {
            level.fetch_or(bit_of(group), Ordering::SeqCst);
        }
    }

    /// Sets the one bit of a chunk without memory.
    #[cold]
    fn set_coarse(&self, chunk: u64) {
        let coarse = &self.coarse[index(chunk / WORD)];
        if coarse.load(Ordering::Relaxed) & bit_of(chunk) != 0 {
            return;
        }
        coarse.fetch_or(bit_of(chunk), Ordering::SeqCst);
        self.raise(chunk, u64::MAX);
    }

    /// Whether the chunk has memory. Unless all of it is set anyway, a chunk without gets some from the budget.
    #[inline]
    fn has_memory(&self, chunk: u64) -> bool {
        self.is_backed(chunk) || (!self.is_coarse(chunk) && self.back(chunk))
    }

    /// Gives the chunk memory from the budget if it has none. Returns whether it has some now.
    #[cold]
    pub(super) fn back(&self, chunk: u64) -> bool {
        let mut memory = self.memory.lock();
        if self.is_backed(chunk) {
            return true;
        }
        let has_leaves = index(chunk * CHUNK_WORDS) < self.leaves.len();
        if !has_leaves || memory.used == memory.max {
            return false;
        }
        memory.used += 1;
        self.backed[index(chunk / WORD)].fetch_or(bit_of(chunk), Ordering::SeqCst);
        true
    }
}

/// Sets the bits it is given.
impl BitSink for &SparseBitmap {
    fn line(&mut self, first_word: u64, words: &Line) {
        for (word, bits) in (first_word..).zip(words) {
            if *bits != 0 {
                self.set_word(word, *bits);
            }
        }
    }

    fn span(&mut self, first: u64, last: u64) {
        self.set_span(first, last);
    }
}

/// Calls `run` with the first and the last bit of every run of set bits in each of `words`.
pub(crate) fn runs(first_word: u64, words: &Line, mut run: impl FnMut(u64, u64)) {
    for (word, bits) in (first_word..).zip(words) {
        for first in set_bits(bits & !(bits << 1)) {
            let length = u64::from((bits >> first).trailing_ones());
            run(word * WORD + first, word * WORD + first + length - 1);
        }
    }
}
