//! Reading bits: down from the root, along what is set.

use super::{
    BitSink, CHUNK_BITS, LINE_BITS, LINE_WORDS, Line, SparseBitmap, WORD, bit_of, index, set_bits, span_mask,
};
use crate::sync::{AtomicU64, Ordering, level_fence};

/// What a walk does to the bits it meets.
trait Visit {
    /// The bits of `word` under `mask`.
    fn fetch(word: &AtomicU64, mask: u64) -> u64;
    /// Whether levels are cleared on the way down, and must be raised again above what is left.
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
    pub(crate) fn take(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        self.walk::<Take>(first, last, sink);
    }

    /// Gives the set bits among `first..=last` to `sink`.
    pub(crate) fn peek(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        self.walk::<Peek>(first, last, sink);
    }

    fn walk<V: Visit>(&self, first: u64, last: u64, sink: &mut impl BitSink) {
        if first > last || first >= self.end {
            return;
        }
        let span = Span {
            first,
            last: last.min(self.end - 1),
        };
        let _exclusive = self.reading.lock();
        let mut found = Batch::new(sink);
        let (first_group, last_group) = span.of(CHUNK_BITS * WORD);
        for root in first_group / WORD..=last_group / WORD {
            let level = &self.root[index(root)];
            let marked = level.load(Ordering::SeqCst) & span_mask(root, first_group, last_group);
            for bit in set_bits(marked) {
                V::fetch(level, bit_of(bit));
                level_fence();
                self.walk_group::<V>(root * WORD + bit, &span, &mut found);
            }
        }
        found.flush();
    }

    fn walk_group<V: Visit>(&self, group: u64, span: &Span, found: &mut Batch<'_, impl BitSink>) {
        let level = &self.groups[index(group)];
        let (first, last) = span.of(CHUNK_BITS);
        let marked = V::fetch(level, span_mask(group, first, last));
        level_fence();
        self.warm_up(group, marked & self.backed[index(group)].load(Ordering::Relaxed));
        let coarse = self.coarse[index(group)].load(Ordering::SeqCst);
        for bit in set_bits(marked) {
            let chunk = group * WORD + bit;
            let Some(part) = span.within(chunk, CHUNK_BITS) else {
                continue;
            };
            self.walk_chunk::<V>(chunk, &part, found);
            if coarse & bit_of(bit) != 0 {
                self.walk_coarse::<V>(chunk, &part, found);
            }
        }
        if V::CLEARS && level.load(Ordering::SeqCst) != 0 {
            self.raise_root(group);
        }
    }

    /// Looks at what will be read where little is dirty: looks wait for memory side by side, reads one after the other.
    /// All of `chunks` have memory.
    fn warm_up(&self, group: u64, chunks: u64) {
        if cfg!(loom) {
            return;
        }
        let mut seen = 0;
        for chunk in set_bits(chunks).map(|bit| group * WORD + bit) {
            let lines = self.lines[index(chunk)].load(Ordering::Relaxed);
            if lines.count_ones() <= 2 {
                let first_word = |line| (chunk * WORD + line) * LINE_WORDS;
                seen |= set_bits(lines).fold(0, |all, line| {
                    all | self.leaf(first_word(line)).load(Ordering::Relaxed)
                });
            }
        }
        std::hint::black_box(seen);
    }

    fn walk_chunk<V: Visit>(&self, chunk: u64, part: &Span, found: &mut Batch<'_, impl BitSink>) {
        let level = &self.lines[index(chunk)];
        let (first, last) = part.of(LINE_BITS);
        let marked = V::fetch(level, span_mask(chunk, first, last));
        level_fence();
        if self.is_backed(chunk) {
            for bit in set_bits(marked) {
                self.walk_line::<V>(chunk * WORD + bit, part, found);
            }
        }
        if V::CLEARS && level.load(Ordering::SeqCst) != 0 {
            self.raise_group(chunk);
        }
    }

    #[inline]
    fn walk_line<V: Visit>(&self, line: u64, part: &Span, found: &mut Batch<'_, impl BitSink>) {
        let first_word = line * LINE_WORDS;
        let words = self.leaves(first_word, first_word + LINE_WORDS - 1);
        let is_whole = part.first <= line * LINE_BITS && line * LINE_BITS + (LINE_BITS - 1) <= part.last;
        found.line(first_word, |at| {
            let mask = if is_whole {
                u64::MAX
            } else {
                part.mask(first_word + at as u64)
            };
            if words[at].load(Ordering::SeqCst) & mask == 0 {
                0
            } else {
                V::fetch(&words[at], mask)
            }
        });
        if V::CLEARS && !is_whole && words.iter().any(|leaf| leaf.load(Ordering::SeqCst) != 0) {
            self.raise(line / WORD, bit_of(line));
        }
    }

    /// Finds a chunk all of which counts as set.
    #[cold]
    fn walk_coarse<V: Visit>(&self, chunk: u64, part: &Span, found: &mut Batch<'_, impl BitSink>) {
        found.span(part.first, part.last);
        if !V::CLEARS {
            return;
        }
        let coarse = &self.coarse[index(chunk / WORD)];
        let all = Span {
            first: chunk * CHUNK_BITS,
            last: (chunk * CHUNK_BITS + CHUNK_BITS).min(self.end) - 1,
        };
        if *part == all {
            coarse.fetch_and(!bit_of(chunk), Ordering::SeqCst);
            return;
        }
        // The rest stays set: one by one if there is memory for it, else with all of the chunk.
        if self.back(chunk) {
            for word in all.first / WORD..=all.last / WORD {
                let rest = span_mask(word, all.first, all.last) & !part.mask(word);
                self.leaf(word).fetch_or(rest, Ordering::SeqCst);
            }
            coarse.fetch_and(!bit_of(chunk), Ordering::SeqCst);
        }
        self.raise(chunk, u64::MAX);
    }
}

/// The bits `first..=last`.
#[derive(PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// The first and the last unit of `bits` bits that the span touches.
    #[inline]
    fn of(&self, bits: u64) -> (u64, u64) {
        (self.first / bits, self.last / bits)
    }

    /// The part of the span that lies in unit `unit` of `bits` bits.
    #[inline]
    fn within(&self, unit: u64, bits: u64) -> Option<Self> {
        let (first, last) = (
            self.first.max(unit * bits),
            self.last.min(unit * bits + (bits - 1)),
        );
        (first <= last).then_some(Self { first, last })
    }

    /// The bits of word `word` that lie in the span.
    #[inline]
    fn mask(&self, word: u64) -> u64 {
        self.within(word, WORD)
            .map_or(0, |part| span_mask(word, part.first, part.last))
    }
}

/// Lines found and not yet given to the sink.
///
/// A reader's atomic accesses wait for the writes before them: to give each line away at once would make the
/// next access wait for the sink's memory.
struct Batch<'a, S: BitSink> {
    sink: &'a mut S,
    lines: [(u64, Line); 16],
    len: usize,
}

impl<'a, S: BitSink> Batch<'a, S> {
    fn new(sink: &'a mut S) -> Self {
        Self {
            sink,
            lines: Default::default(),
            len: 0,
        }
    }

    #[inline]
    fn line(&mut self, first_word: u64, word: impl Fn(usize) -> u64) {
        if self.len == self.lines.len() {
            self.flush();
        }
        self.lines[self.len] = (first_word, std::array::from_fn(word));
        self.len += 1;
    }

    fn span(&mut self, first: u64, last: u64) {
        self.sink.span(first, last);
    }

    fn flush(&mut self) {
        for (first_word, words) in &self.lines[..self.len] {
            self.sink.line(*first_word, words);
        }
        self.len = 0;
    }
}
