//! Addresses: [`Iova`], [`IovaRange`] and [`PageSize`].
//!
//! A range is inclusive at both ends and never empty, so that the end of the address space needs no special case.

use std::fmt;

use thiserror::Error;

/// The software tracker covers the IOVAs below this (exclusive): 2^52, the width of an x86-64 physical address.
///
/// Nothing may be mapped at or above it, or writes there would go unrecorded: whoever accepts mappings refuses them.
pub const IOVA_END: u64 = 1 << 52;

/// An I/O virtual address: where a device sees a byte of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Iova(u64);

impl Iova {
    /// The address `value`, in bytes.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The address in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on, or `None` past the end of the address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl From<u64> for Iova {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<Iova> for u64 {
    fn from(iova: Iova) -> Self {
        iova.0
    }
}

impl fmt::Display for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

/// Why two numbers are not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// No byte lies in it: the length is zero, or the last address is below the first.
    #[error("the range is empty")]
    Empty,
    /// It runs past the end of the address space.
    #[error("the range wraps around the end of the address space")]
    Wraps,
}

/// The bytes `start..=last` of an address space; at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IovaRange {
    start: Iova,
    last: Iova,
}

impl IovaRange {
    /// All that can be tracked: the IOVAs below [`IOVA_END`].
    pub const ALL: Self = Self {
        start: Iova(0),
        last: Iova(IOVA_END - 1),
    };

    /// The range of the bytes `start..=last`.
    ///
    /// # Errors
    /// [`RangeError::Empty`] if `last` is below `start`.
    pub const fn new(start: Iova, last: Iova) -> Result<Self, RangeError> {
        if last.0 < start.0 {
            return Err(RangeError::Empty);
        }
        Ok(Self { start, last })
    }

    /// The range of `len` bytes from `start` on.
    ///
    /// # Errors
    /// [`RangeError::Empty`] if `len` is zero, [`RangeError::Wraps`] if the range passes the end of the address space.
    pub const fn from_len(start: Iova, len: u64) -> Result<Self, RangeError> {
        if len == 0 {
            return Err(RangeError::Empty);
        }
        match start.checked_add(len - 1) {
            Some(last) => Ok(Self { start, last }),
            None => Err(RangeError::Wraps),
        }
    }

    /// The first address.
    pub const fn start(&self) -> Iova {
        self.start
    }

    /// The last address, inclusive.
    pub const fn last(&self) -> Iova {
        self.last
    }

    /// The number of bytes, never zero. The whole 64-bit space has one byte more than the `u64::MAX` returned for it.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(&self) -> u64 {
        (self.last.0 - self.start.0).saturating_add(1)
    }

    /// Whether all of `other` lies in this range.
    pub const fn contains(&self, other: &Self) -> bool {
        self.start.0 <= other.start.0 && other.last.0 <= self.last.0
    }

    /// Whether the byte at `iova` lies in this range.
    pub const fn contains_iova(&self, iova: Iova) -> bool {
        self.start.0 <= iova.0 && iova.0 <= self.last.0
    }

    /// Whether the two ranges have a byte in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start.0 <= other.last.0 && other.start.0 <= self.last.0
    }

    /// The bytes that the two ranges have in common.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if !self.overlaps(other) {
            return None;
        }
        Some(Self {
            start: self.start.max(other.start),
            last: self.last.min(other.last),
        })
    }

    /// The range `start..=last` of two numbers known to be in order.
    pub(crate) fn of(start: u64, last: u64) -> Self {
        debug_assert!(start <= last);
        Self {
            start: Iova(start),
            last: Iova(last),
        }
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.last)
    }
}

impl fmt::Debug for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IovaRange({self})")
    }
}

/// A page size: a power of two, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize {
    shift: u8,
}

impl PageSize {
    /// 4 KiB.
    pub const SIZE_4K: Self = Self { shift: 12 };
    /// 2 MiB.
    pub const SIZE_2M: Self = Self { shift: 21 };
    /// 1 GiB.
    pub(crate) const SIZE_1G: Self = Self { shift: 30 };

    /// The page size of `bytes` bytes, or `None` if that is not a power of two.
    pub const fn new(bytes: u64) -> Option<Self> {
        if !bytes.is_power_of_two() {
            return None;
        }
        Some(Self {
            shift: bytes.trailing_zeros() as u8,
        })
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The logarithm of the size to base two.
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSize({:#x})", self.bytes())
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_empty_and_never_wraps() {
        assert_eq!(IovaRange::new(Iova(1), Iova(0)), Err(RangeError::Empty));
        assert_eq!(IovaRange::from_len(Iova(0), 0), Err(RangeError::Empty));
        assert_eq!(IovaRange::from_len(Iova(u64::MAX), 2), Err(RangeError::Wraps));
    }

    #[test]
    fn the_last_byte_of_the_address_space_belongs_to_a_range() {
        let range = IovaRange::from_len(Iova(1), u64::MAX).unwrap();
        assert_eq!(range.last(), Iova(u64::MAX));
        assert_eq!(range.len(), u64::MAX);
        let top = IovaRange::from_len(Iova(u64::MAX), 1).unwrap();
        assert_eq!(range.intersection(&top), Some(top));
        assert!(range.contains(&top) && !top.contains(&range));
        assert_eq!(IovaRange::of(0, u64::MAX).len(), u64::MAX);
    }

    #[test]
    fn ranges_that_only_touch_have_nothing_in_common() {
        let (low, high) = (IovaRange::of(0, 9), IovaRange::of(10, 19));
        assert!(!low.overlaps(&high));
        assert_eq!(low.intersection(&high), None);
        assert_eq!(low.intersection(&IovaRange::of(9, 30)), Some(IovaRange::of(9, 9)));
    }

    #[test]
    fn a_page_size_is_a_power_of_two() {
        assert_eq!(PageSize::new(0), None);
        assert_eq!(PageSize::new(4097), None);
        assert_eq!(PageSize::new(4096), Some(PageSize::SIZE_4K));
        assert_eq!(PageSize::new(1 << 63).map(PageSize::bytes), Some(1 << 63));
    }
}
