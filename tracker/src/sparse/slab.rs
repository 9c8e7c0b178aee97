//! [`Slab`]: a fixed array of zeroed atomics, of which only the pages that are touched take memory.
#![allow(unsafe_code)] // The array is a view of an anonymous mapping.

use std::io;
use std::ops::Deref;

/// A fixed array of atomics that are zero at first.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct Slab<T> {
    map: memmap2::MmapRaw,
    len: usize,
    element: std::marker::PhantomData<T>,
}

/// A type made of atomics, for which memory full of zeros is a valid value, and which wants no more than a page's alignment.
#[cfg(not(loom))]
pub(super) trait ZeroedAtomic: Sync {}
#[cfg(not(loom))]
impl ZeroedAtomic for crate::sync::AtomicU64 {}

#[cfg(not(loom))]
impl<T: ZeroedAtomic> Slab<T> {
    /// An array of `len` zeros: address space only, until a page of it is written.
    pub(super) fn new(len: u64) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let bytes = len.max(1).checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        let map = memmap2::MmapOptions::new()
            .len(bytes)
            .no_reserve_swap()
            .map_anon()?;
        Ok(Self {
            map: map.into(),
            len,
            element: std::marker::PhantomData,
        })
    }

    /// Takes memory for the first `len` elements in large pages, if the kernel has them: for a part that is used densely.
    pub(super) fn prefer_large_pages(&self, len: u64) {
        let bytes = self.len.min(len as usize) * size_of::<T>();
        // It works without as well.
        let _ = self.map.advise_range(memmap2::Advice::HugePage, 0, bytes);
    }
}

#[cfg(not(loom))]
impl<T: ZeroedAtomic> Deref for Slab<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let first: *const T = self.map.as_mut_ptr().cast::<T>().cast_const();
        // SAFETY: the private anonymous mapping is page-aligned, holds at least `len` elements, was zeroed by the
        // kernel (valid for `T`, see `ZeroedAtomic`), lives as long as `self`, and is only reached through such slices.
        unsafe { std::slice::from_raw_parts(first, self.len) }
    }
}

/// The model's array: loom's atomics live on the heap.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct Slab<T>(Box<[T]>);

#[cfg(loom)]
impl<T: Default> Slab<T> {
    pub(super) fn new(len: u64) -> io::Result<Self> {
        Ok(Self((0..len).map(|_| T::default()).collect()))
    }

    pub(super) fn prefer_large_pages(&self, _len: u64) {}
}

#[cfg(loom)]
impl<T> Deref for Slab<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}
