//! Setting bits: the hot path of every device.

use super::{BitSink, CHUNK_BITS, CHUNK_WORDS, SparseBitmap, WORD, bit_of, index, span_mask};
use crate::sync::{Ordering, level_fence};

impl SparseBitmap {
    /// Sets bit `bit`, or does nothing past the end.
    #[inline]
    pub(crate) fn set(&self, bit: u64) {
        let Some(number) = self.directory.get(index(bit / CHUNK_BITS)) else {
            return;
        };
        let leaf = self.leaf(u64::from(number.load(Ordering::Acquire)), bit / WORD);
        if leaf.load(Ordering::Relaxed) & bit_of(bit) != 0 {
            return;
        }
        self.set_word(bit / WORD, bit_of(bit));
    }

    /// Sets the bits `first..=last`, as far as they lie before the end.
    #[inline]
    pub(crate) fn set_span(&self, first: u64, last: u64) {
        if first == last {
            return self.set(first);
        }
        if first >= self.end {
            return;
        }
        let last = last.min(self.end - 1);
        let (mut from, last_chunk) = (first, last / CHUNK_BITS);
        for chunk in first / CHUNK_BITS..last_chunk {
            let end = (chunk + 1) * CHUNK_BITS;
            self.set_in_chunk(chunk, from, end - 1);
            from = end;
        }
        self.set_in_chunk(last_chunk, from, last);
    }

    /// Sets the bits `mask` of the leaf word `word`, which lies before the end.
    #[inline(never)]
    fn set_word(&self, word: u64, mask: u64) {
        let chunk = word / CHUNK_WORDS;
        let Some(number) = self.memory_of(chunk) else {
            return self.set_coarse(chunk);
        };
        self.leaf(number, word).fetch_or(mask, Ordering::SeqCst);
        self.raise_summary(number, word, bit_of(word));
        self.raise(chunk);
    }

    /// Sets the bits `first..=last`, which all lie in `chunk`.
    fn set_in_chunk(&self, chunk: u64, first: u64, last: u64) {
        let Some(number) = self.memory_of(chunk) else {
            return self.set_coarse(chunk);
        };
        let last_word = last / WORD;
        let (mut summary, mut raised) = (0, false);
        for word in first / WORD..=last_word {
            let (leaf, mask) = (self.leaf(number, word), span_mask(word, first, last));
            if leaf.load(Ordering::Relaxed) & mask != mask {
                leaf.fetch_or(mask, Ordering::SeqCst);
                summary |= bit_of(word);
            }
            if summary != 0 && (word == last_word || word % WORD == WORD - 1) {
                self.raise_summary(number, word, summary);
                (summary, raised) = (0, true);
            }
        }
        if raised {
            self.raise(chunk);
        }
    }

    /// Makes sure that the bits `bits` of the summary word that covers leaf word `word` are set.
    fn raise_summary(&self, number: u64, word: u64, bits: u64) {
        level_fence();
        let summary = self.summary(number, word);
        if summary.load(Ordering::SeqCst) & bits != bits {
            summary.fetch_or(bits, Ordering::SeqCst);
        }
    }

    /// Makes sure that the levels above `chunk` lead to it.
    pub(super) fn raise(&self, chunk: u64) {
        level_fence();
        let group = chunk / WORD;
        let chunks = &self.groups[index(group)];
        if chunks.load(Ordering::SeqCst) & bit_of(chunk) == 0 {
            chunks.fetch_or(bit_of(chunk), Ordering::SeqCst);
        }
        self.raise_root(group);
    }

    /// Makes sure that the root leads to `group`.
    pub(super) fn raise_root(&self, group: u64) {
        level_fence();
        let root = &self.root[index(group / WORD)];
        if root.load(Ordering::SeqCst) & bit_of(group) == 0 {
            root.fetch_or(bit_of(group), Ordering::SeqCst);
        }
    }

    /// Sets the one bit of a chunk that there is no memory for.
    #[cold]
    fn set_coarse(&self, chunk: u64) {
        let coarse = &self.coarse[index(chunk / WORD)];
        if coarse.load(Ordering::Relaxed) & bit_of(chunk) != 0 {
            return;
        }
        coarse.fetch_or(bit_of(chunk), Ordering::SeqCst);
        self.raise(chunk);
    }

    /// The number of the chunk's memory, which it gets if it has none and the budget allows.
    #[inline]
    fn memory_of(&self, chunk: u64) -> Option<u64> {
        match self.number(chunk) {
            0 => self.assign_memory(chunk),
            number => Some(number),
        }
    }

    #[cold]
    fn assign_memory(&self, chunk: u64) -> Option<u64> {
        let mut memory = self.memory.lock();
        match self.number(chunk) {
            0 if memory.used == memory.max => None,
            0 => {
                memory.used += 1;
                self.directory[index(chunk)].store(memory.used, Ordering::Release);
                Some(u64::from(memory.used))
            }
            number => Some(number),
        }
    }
}

/// Sets the bits it is given.
impl BitSink for &SparseBitmap {
    fn word(&mut self, word: u64, bits: u64) {
        self.set_word(word, bits);
    }

    fn span(&mut self, first: u64, last: u64) {
        self.set_span(first, last);
    }
}
