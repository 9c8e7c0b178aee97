//! [`Found`]: the bitmap in which a kernel says what it found, one bit per page of a range.
//!
//! Its first bit is the page at the start of the range, which need not be the first of a word of [`Granules`]; this is
//! where the one becomes the other.
//!
//! [`Granules`]: crate::granules::Granules

use std::io;

use memmap2::MmapMut;

use crate::granules::GRANULE;
use crate::sparse::{BitSink, LINE_WORDS, Line, runs};
use crate::{IovaRange, PageSize};

const WORD: u64 = 64;

/// A bitmap to be filled by a kernel: whole words, from the start of a page of memory on, as its code is best tested.
#[derive(Debug)]
pub(crate) struct Found {
    words: MmapMut,
}

impl Found {
    /// A clear bitmap of the pages of `range`.
    pub(crate) fn new(range: &IovaRange, page_size: PageSize) -> io::Result<Self> {
        Ok(Self {
            words: MmapMut::map_anon(bytes_for(range, page_size)?)?,
        })
    }

    /// The memory of the bitmap.
    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.words
    }

    /// Gives the pages that are set to `sink`, as granules; bit 0 is the page at the start of `range`.
    pub(crate) fn give(&self, range: &IovaRange, page_size: PageSize, sink: &mut impl BitSink) {
        let (words, _) = self.words.as_chunks::<8>();
        give(words, range, page_size, sink);
    }
}

/// A word of a bitmap that a kernel has filled.
pub(crate) trait Word: Copy {
    fn bits(self) -> u64;
}

impl Word for u64 {
    fn bits(self) -> u64 {
        self
    }
}

impl Word for [u8; 8] {
    fn bits(self) -> u64 {
        u64::from_ne_bytes(self)
    }
}

/// Gives the pages of `range` whose bits are set in `words` to `sink`, as granules.
///
/// `page_size` is that of a granule or more, and `range` is aligned to it. What is clear costs little more than to be looked at.
pub(crate) fn give<W: Word>(words: &[W], range: &IovaRange, page_size: PageSize, sink: &mut impl BitSink) {
    let scale = page_size.shift() - GRANULE.shift();
    let mut give_line = |first_word: u64, line: &Line| match scale {
        0 => sink.line(first_word, line),
        _ => runs(first_word, line, |first, last| {
            sink.span(first << scale, ((last + 1) << scale) - 1);
        }),
    };
    // Bit 0 is a page that need not be the first one of a word: all move up, from word to word.
    let first = range.start().get() >> page_size.shift();
    let (shift, mut next) = (first % WORD, first / WORD);
    let mut carry = 0;
    for chunk in words.chunks(LINE_WORDS as usize) {
        if carry != 0 || chunk.iter().any(|word| word.bits() != 0) {
            let mut line: Line = [0; LINE_WORDS as usize];
            for (moved, word) in line.iter_mut().zip(chunk) {
                *moved = word.bits() << shift | carry;
                carry = word.bits().checked_shr((WORD - shift) as u32).unwrap_or(0);
            }
            give_line(next, &line);
        }
        next += chunk.len() as u64;
    }
    if carry != 0 {
        let mut line: Line = [0; LINE_WORDS as usize];
        line[0] = carry;
        give_line(next, &line);
    }
}

/// The bytes of whole words for the bits of `range`.
fn bytes_for(range: &IovaRange, page_size: PageSize) -> io::Result<usize> {
    let pages = range.len().div_ceil(page_size.bytes());
    usize::try_from(pages.div_ceil(WORD) * 8).map_err(|_| io::ErrorKind::OutOfMemory.into())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The granules it was given.
    #[derive(Default)]
    struct Granules(BTreeSet<u64>);

    impl BitSink for Granules {
        fn line(&mut self, first_word: u64, words: &Line) {
            runs(first_word, words, |first, last| self.0.extend(first..=last));
        }

        fn span(&mut self, first: u64, last: u64) {
            self.0.extend(first..=last);
        }
    }

    proptest! {
        #[test]
        fn every_bit_becomes_the_granules_of_its_page_and_no_other(
            start in 0..2000_u64,
            pages in proptest::collection::btree_set(0..1500_u64, 0..60),
            scale in 0..5_u32,
        ) {
            let page_size = PageSize::new(GRANULE.bytes() << scale).unwrap();
            let range = IovaRange::of(start * page_size.bytes(), (start + 1500) * page_size.bytes() - 1);
            let mut found = Found::new(&range, page_size).unwrap();
            for page in &pages {
                found.as_mut_bytes()[(page / 8) as usize] |= 1 << (page % 8);
            }
            let mut granules = Granules::default();
            found.give(&range, page_size, &mut granules);
            let expected: BTreeSet<u64> = pages
                .iter()
                .flat_map(|page| (start + page) << scale..(start + page + 1) << scale)
                .collect();
            prop_assert_eq!(granules.0, expected);
        }
    }
}
