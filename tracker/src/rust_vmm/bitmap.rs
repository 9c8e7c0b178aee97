//! [`DirtyBitmap`].

use std::num::NonZeroUsize;

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

use crate::Barrier;
use crate::sparse::{BitSink, CHUNK_BITS, Discard, Line, SparseBitmap};
use crate::sync::{Ordering, fence, light_fence};

/// A bitmap of the dirty pages of `byte_size` bytes, with the calls of `vm_memory::bitmap::AtomicBitmap`.
///
/// Marking, reading and memory cost what they do in a [`SoftwareTracker`](crate::SoftwareTracker), and the order is
/// kept in the same way; it is never coarse. Offsets past the end are ignored when marked and never dirty.
#[derive(Debug)]
pub struct DirtyBitmap {
    bits: SparseBitmap,
    byte_size: usize,
    page_size: NonZeroUsize,
    barrier: Barrier,
}

impl DirtyBitmap {
    /// A clean bitmap of `byte_size` bytes, one bit per page.
    ///
    /// # Panics
    /// If the address space of this process has no room for it.
    pub fn new(byte_size: usize, page_size: NonZeroUsize) -> Self {
        let pages = byte_size.div_ceil(page_size.get()) as u64;
        let bits =
            SparseBitmap::new(pages, pages.div_ceil(CHUNK_BITS)).expect("address space for a dirty bitmap");
        Self {
            bits,
            byte_size,
            page_size,
            barrier: Barrier::detect(),
        }
    }

    /// Adds clean pages for `additional_size` more bytes.
    ///
    /// # Panics
    /// As [`DirtyBitmap::new`], and if the size is no longer a `usize`.
    pub fn enlarge(&mut self, additional_size: usize) {
        let byte_size = self
            .byte_size
            .checked_add(additional_size)
            .expect("a size that is a usize");
        let larger = Self::new(byte_size, self.page_size);
        self.bits.take(0, u64::MAX, &mut &larger.bits);
        *self = larger;
    }

    /// Whether page `index` is dirty.
    pub fn is_bit_set(&self, index: usize) -> bool {
        self.bits.test(index as u64)
    }

    /// Whether the page of the byte at `addr` is dirty.
    pub fn is_addr_set(&self, addr: usize) -> bool {
        self.is_bit_set(self.page(addr))
    }

    /// Marks page `index`.
    pub fn set_bit(&self, index: usize) {
        self.order_data();
        self.bits.set(index as u64);
    }

    /// Marks the pages of the `len` bytes from `start_addr` on.
    #[inline]
    pub fn set_addr_range(&self, start_addr: usize, len: usize) {
        self.order_data();
        if let Some((first, last)) = self.pages(start_addr, len) {
            self.bits.set_span(first, last);
        }
    }

    /// Makes page `index` clean.
    pub fn reset_bit(&self, index: usize) {
        self.bits.take(index as u64, index as u64, &mut Discard);
        self.finish_reading();
    }

    /// Makes the pages of the `len` bytes from `start_addr` on clean.
    pub fn reset_addr_range(&self, start_addr: usize, len: usize) {
        if let Some((first, last)) = self.pages(start_addr, len) {
            self.bits.take(first, last, &mut Discard);
            self.finish_reading();
        }
    }

    /// The number of pages.
    #[allow(clippy::len_without_is_empty, reason = "AtomicBitmap has none")]
    pub fn len(&self) -> usize {
        self.bits.end() as usize
    }

    /// The number of bytes whose pages have a bit.
    pub fn byte_size(&self) -> usize {
        self.byte_size
    }

    /// Makes every page clean, and returns the bits as they were: page `n` is bit `n % 64` of word `n / 64`.
    ///
    /// What was written before a page's mark is visible to the caller when this returns.
    pub fn get_and_reset(&self) -> Vec<u64> {
        let mut words = Dense(vec![0; self.len().div_ceil(64)]);
        self.bits.take(0, u64::MAX, &mut words);
        self.finish_reading();
        words.0
    }

    /// As [`get_and_reset`](Self::get_and_reset), but ORs the bits into `words`, of which there is one per 64 pages.
    ///
    /// # Panics
    /// If `words` is too short.
    pub fn or_and_reset(&self, words: &mut [u64]) {
        assert!(words.len() >= self.len().div_ceil(64), "room for every page");
        self.bits.take(0, u64::MAX, &mut Dense(words));
        self.finish_reading();
    }

    /// Makes every page clean.
    pub fn reset(&self) {
        self.bits.take(0, u64::MAX, &mut Discard);
        self.finish_reading();
    }

    fn page(&self, addr: usize) -> usize {
        if self.page_size.is_power_of_two() {
            addr >> self.page_size.trailing_zeros()
        } else {
            addr / self.page_size
        }
    }

    /// The first and the last page of the `len` bytes from `start` on; what runs past the address space is cut off.
    fn pages(&self, start: usize, len: usize) -> Option<(u64, u64)> {
        let last = start.saturating_add(len.checked_sub(1)?);
        Some((self.page(start) as u64, self.page(last) as u64))
    }

    /// The writer's half of the barrier: comes after the caller's data and before the look at a bit.
    #[inline]
    fn order_data(&self) {
        light_fence();
        if self.barrier == Barrier::Fences {
            fence(Ordering::SeqCst);
        }
    }

    /// The reader's half: comes after bits are cleared and before the caller copies a page.
    fn finish_reading(&self) {
        self.barrier
            .reader()
            .expect("the barrier that the kernel promised");
    }
}

/// Collects bits in an array of all of them.
struct Dense<W>(W);

impl<W: AsMut<[u64]>> BitSink for Dense<W> {
    #[inline]
    fn line(&mut self, first_word: u64, words: &Line) {
        // The last line may reach past the last page; nothing is set there.
        let to = self.0.as_mut()[first_word as usize..].iter_mut();
        to.zip(words).for_each(|(to, from)| *to |= from);
    }

    fn span(&mut self, first: u64, last: u64) {
        for bit in first..=last {
            self.0.as_mut()[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
}

impl Clone for DirtyBitmap {
    fn clone(&self) -> Self {
        let copy = Self::new(self.byte_size, self.page_size);
        self.bits.peek(0, u64::MAX, &mut &copy.bits);
        copy
    }
}

impl<'a> WithBitmapSlice<'a> for DirtyBitmap {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for DirtyBitmap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.set_addr_range(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.is_addr_set(offset)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl Default for DirtyBitmap {
    fn default() -> Self {
        Self::with_len(0)
    }
}

impl NewBitmap for DirtyBitmap {
    fn with_len(len: usize) -> Self {
        let page_size = NonZeroUsize::new(rustix::param::page_size()).unwrap_or(NonZeroUsize::MIN);
        Self::new(len, page_size)
    }
}
