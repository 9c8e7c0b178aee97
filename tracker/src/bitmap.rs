//! [`ReportBitmap`]: the caller's buffer that a report is OR-ed into.
//!
//! The format is the kernel's: little-endian 64-bit words, whose first bit is the page at the start of the range. A
//! report only ever sets bits. Page sizes are converted here, and nowhere else: a dirty range sets the bit of every
//! page of the report that it touches, whatever the sizes and alignments.

use thiserror::Error;
use zerocopy::FromBytes;

use crate::granules::{GRANULE, Granules, bytes_of};
use crate::sparse::{BitSink, LINE_WORDS, Line, runs};
use crate::{Iova, IovaRange, PageSize};

/// Why a buffer cannot hold a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BitmapError {
    /// It is shorter than the bits of the range.
    #[error("a bitmap of {required} bytes is needed, the buffer has {given}")]
    TooShort {
        /// The bytes needed, see [`ReportBitmap::required_len`].
        required: usize,
        /// The bytes there are.
        given: usize,
    },
    /// The number of bytes needed is not a `usize`.
    #[error("the bitmap is too large for this machine")]
    TooLarge,
}

/// A bitmap of the dirty pages of a range, one bit per page of a given size.
///
/// The range need not be aligned to the page size: bit `n` stands for the bytes from `start + n * page_size` on, and
/// the last page may be a short one.
#[derive(Debug)]
pub struct ReportBitmap<'a> {
    range: IovaRange,
    page_size: PageSize,
    target: Target<'a>,
}

/// Where the bits go.
#[derive(Debug)]
enum Target<'a> {
    /// The caller's buffer, of whole 64-bit words.
    Words(&'a mut [[u8; 8]]),
    /// A set of granules of the address space.
    Granules(&'a Granules),
}

impl<'a> ReportBitmap<'a> {
    /// A bitmap of `range` in `bytes`, in which bits may be set already.
    ///
    /// # Errors
    /// [`BitmapError::TooShort`] if `bytes` is shorter than [`required_len`](Self::required_len).
    pub fn new(range: IovaRange, page_size: PageSize, bytes: &'a mut [u8]) -> Result<Self, BitmapError> {
        let required = Self::required_len(range, page_size)?;
        let given = bytes.len();
        let bytes = bytes
            .get_mut(..required)
            .ok_or(BitmapError::TooShort { required, given })?;
        let (words, _) = bytes.as_chunks_mut();
        Ok(Self {
            range,
            page_size,
            target: Target::Words(words),
        })
    }

    /// The bytes that a bitmap of `range` takes: a multiple of 8.
    ///
    /// # Errors
    /// [`BitmapError::TooLarge`] if that is not a `usize`.
    pub fn required_len(range: IovaRange, page_size: PageSize) -> Result<usize, BitmapError> {
        let words = (last_page(range, page_size) / 64 + 1)
            .checked_mul(8)
            .ok_or(BitmapError::TooLarge)?;
        usize::try_from(words).map_err(|_| BitmapError::TooLarge)
    }

    /// A report of `range` that goes into `granules`.
    pub(crate) fn into_granules(range: IovaRange, granules: &'a Granules) -> Self {
        Self {
            range,
            page_size: GRANULE,
            target: Target::Granules(granules),
        }
    }

    /// The words of the pages of `part`, for a kernel to set bits in: the first bit is the page at its start. There are none unless the report has
    /// pages of `page_size`, holds all of `part`, and has its first page at the start of a word in memory.
    pub(crate) fn words_of(&mut self, part: &IovaRange, page_size: PageSize) -> Option<&mut [u64]> {
        let Target::Words(words) = &mut self.target else {
            return None;
        };
        if page_size != self.page_size || !self.range.contains(part) || cfg!(target_endian = "big") {
            return None;
        }
        let of_word = 64 << page_size.shift();
        let first = part.start().get() - self.range.start().get();
        let last = part.last().get() - self.range.start().get();
        if !first.is_multiple_of(of_word) {
            return None;
        }
        let words = &mut words[(first / of_word) as usize..=(last / of_word) as usize];
        <[u64]>::mut_from_bytes(words.as_flattened_mut()).ok()
    }

    /// The range reported.
    pub fn range(&self) -> IovaRange {
        self.range
    }

    /// The bytes that one bit stands for.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Sets the bit of every page that `dirty` touches; what lies outside of the bitmap's range is ignored.
    pub fn mark(&mut self, dirty: IovaRange) {
        let Some(dirty) = self.range.intersection(&dirty) else {
            return;
        };
        match &mut self.target {
            Target::Words(words) => {
                let page = |iova: Iova| (iova.get() - self.range.start().get()) >> self.page_size.shift();
                set_span(words, page(dirty.start()), page(dirty.last()));
            }
            Target::Granules(granules) => granules.mark(dirty),
        }
    }

    /// Whether the page of `iova` is dirty. Outside of the range nothing is.
    pub fn is_dirty(&self, iova: Iova) -> bool {
        if !self.range.contains_iova(iova) {
            return false;
        }
        match &self.target {
            Target::Words(words) => {
                let page = (iova.get() - self.range.start().get()) >> self.page_size.shift();
                u64::from_le_bytes(words[(page / 64) as usize]) >> (page % 64) & 1 != 0
            }
            Target::Granules(granules) => granules.is_marked(iova),
        }
    }

    /// The number of dirty pages.
    pub fn count(&self) -> u64 {
        match &self.target {
            Target::Words(words) => words.iter().map(|word| ones(u64::from_le_bytes(*word))).sum(),
            Target::Granules(granules) => {
                let mut count = Count(0);
                granules.peek(&self.range, &mut count);
                count.0
            }
        }
    }
}

/// Takes granules from a [`Granules`].
impl BitSink for ReportBitmap<'_> {
    #[inline]
    fn line(&mut self, first_word: u64, words: &Line) {
        let line = bytes_of(first_word * 64, (first_word + LINE_WORDS) * 64 - 1);
        let from = self.range.start().get();
        let is_same_pages = self.page_size == GRANULE && from.is_multiple_of(GRANULE.bytes());
        match &mut self.target {
            Target::Words(to) if is_same_pages && self.range.contains(&line) => {
                or_line(to, (line.start().get() - from) >> GRANULE.shift(), words);
            }
            _ => runs(first_word, words, |first, last| self.span(first, last)),
        }
    }

    fn span(&mut self, first: u64, last: u64) {
        self.mark(bytes_of(first, last));
    }
}

/// Counts the bits it is given.
struct Count(u64);

impl BitSink for Count {
    fn line(&mut self, _first_word: u64, words: &Line) {
        self.0 += words.iter().copied().map(ones).sum::<u64>();
    }

    fn span(&mut self, first: u64, last: u64) {
        self.0 += last - first + 1;
    }
}

fn ones(word: u64) -> u64 {
    u64::from(word.count_ones())
}

/// The number of the page that the range ends in.
fn last_page(range: IovaRange, page_size: PageSize) -> u64 {
    (range.last().get() - range.start().get()) >> page_size.shift()
}

fn or_word(word: &mut [u8; 8], bits: u64) {
    *word = (u64::from_le_bytes(*word) | bits).to_le_bytes();
}

/// ORs the words `from` in at bit `at`.
#[inline]
fn or_line(words: &mut [[u8; 8]], at: u64, from: &Line) {
    let (word, shift) = ((at / 64) as usize, at % 64);
    if shift == 0 {
        return words[word..]
            .iter_mut()
            .zip(from)
            .for_each(|(to, from)| or_word(to, *from));
    }
    for (to, from) in (word..).zip(from) {
        or_word(&mut words[to], from << shift);
        or_word(&mut words[to + 1], from >> (64 - shift));
    }
}

/// Sets the bits `first..=last`.
fn set_span(words: &mut [[u8; 8]], first: u64, last: u64) {
    let (first_word, last_word) = ((first / 64) as usize, (last / 64) as usize);
    let (from, to) = (u64::MAX << (first % 64), u64::MAX >> (63 - last % 64));
    if first_word == last_word {
        return or_word(&mut words[first_word], from & to);
    }
    or_word(&mut words[first_word], from);
    words[first_word + 1..last_word].fill([0xff; 8]);
    or_word(&mut words[last_word], to);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    /// Sets the bit of a page in the words of `part`. Returns whether they are had, and the page is what is dirty then.
    fn set_page(range: IovaRange, bytes: &mut [u8], part: IovaRange, page: u64) -> bool {
        let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, bytes).unwrap();
        let Some(words) = report.words_of(&part, PageSize::SIZE_4K) else {
            return false;
        };
        words[(page / 64) as usize] |= 1 << (page % 64);
        let iova = Iova::new(part.start().get() + page * 4 * KIB);
        assert!(report.is_dirty(iova), "the page at {iova:?} is not dirty");
        assert_eq!(report.count(), 1);
        true
    }

    /// Bytes that begin at a word, or so many bytes behind it.
    fn in_memory(words: &mut [u64], behind: usize) -> &mut [u8] {
        &mut zerocopy::IntoBytes::as_mut_bytes(words)[behind..]
    }

    proptest! {
        #[test]
        fn words_are_had_only_where_each_bit_is_that_of_its_page(
            start in (0..400_u64, prop::sample::select(vec![0, KIB])),
            skipped in 0..200_u64,
            pages in 1..200_u64,
            page in 0..200_u64,
            behind in 0..2_usize,
        ) {
            let start = start.0 * 4 * KIB + start.1;
            let range = IovaRange::of(start, start + 400 * 4 * KIB - 1);
            let first = (start / (4 * KIB) + skipped) * 4 * KIB;
            let part = IovaRange::of(first, first + pages * 4 * KIB - 1);
            let had = set_page(range, in_memory(&mut [0; 8], behind), part, page % pages);
            let can_be = start.is_multiple_of(4 * KIB) && skipped.is_multiple_of(64) && behind == 0;
            prop_assert_eq!(had, can_be && cfg!(target_endian = "little"));
        }
    }
}
