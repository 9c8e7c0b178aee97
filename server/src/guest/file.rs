//! Checks of a file that a client offers as guest memory, before any of it is mapped.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat, fstatfs};

use super::error::MapRefusal;

/// Guest memory is mapped in multiples of this many bytes.
pub(super) const PAGE: u64 = 4096;

/// `TMPFS_MAGIC` of `linux/magic.h`; a memfd's too.
const TMPFS: u64 = 0x0102_1994;
/// `HUGETLBFS_MAGIC` of `linux/magic.h`.
const HUGETLBFS: u64 = 0x9584_58f6;

/// Which files may be guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedFiles {
    /// Files on tmpfs (memfds are) and hugetlbfs: an access to them never waits for a disk, a network or
    /// another process.
    TmpfsAndHugetlbfs,
    /// Any regular file. An access may then wait for a disk or a server, and unmap and suspend wait for the
    /// access, even beyond their deadlines.
    Any,
}

impl AllowedFiles {
    /// What a user's `allow-any-file` means.
    pub fn from_option(allow_any_file: bool) -> Self {
        if allow_any_file {
            Self::Any
        } else {
            Self::TmpfsAndHugetlbfs
        }
    }
}

/// Whether the file may become shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shrink {
    /// It is sealed against it.
    Sealed,
    /// Its owner may truncate it at any time.
    Possible,
}

/// A part of a file, in the units that its file system maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where the mapping begins in the file, in bytes.
    pub(super) start: u64,
    /// Bytes to map.
    pub(super) len: u64,
    /// Where the memory asked for begins in the mapping, in bytes.
    pub(super) skip: u64,
}

impl Extent {
    /// The smallest extent in multiples of `unit` that holds `size` bytes at `offset`. A huge page is mapped
    /// as a whole even if the client names a part of it.
    fn around(offset: u64, size: u64, unit: u64) -> Option<Self> {
        let start = offset - offset % unit;
        let end = offset.checked_add(size)?.checked_next_multiple_of(unit)?;
        Some(Self {
            start,
            len: end - start,
            skip: offset - start,
        })
    }
}

/// Checks that `size` bytes at `offset` of `file` are there and may be guest memory.
pub(crate) fn check(
    file: BorrowedFd<'_>,
    offset: u64,
    size: u64,
    allowed: AllowedFiles,
) -> Result<(Extent, Shrink), MapRefusal> {
    let stat = fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(MapRefusal::NotRegular);
    }
    let statfs = fstatfs(file)?;
    let kind = u64::try_from(statfs.f_type).unwrap_or(u64::MAX);
    if allowed == AllowedFiles::TmpfsAndHugetlbfs && kind != TMPFS && kind != HUGETLBFS {
        return Err(MapRefusal::FileSystem(kind));
    }
    let end = offset.checked_add(size).ok_or(MapRefusal::OutOfRange)?;
    let file_size = u64::try_from(stat.st_size).unwrap_or(0);
    if file_size < end {
        return Err(MapRefusal::TooShort { size: file_size, end });
    }
    // The block size of hugetlbfs is that of its pages.
    let unit = if kind == HUGETLBFS {
        u64::try_from(statfs.f_bsize).unwrap_or(PAGE).max(PAGE)
    } else {
        PAGE
    };
    let extent = Extent::around(offset, size, unit).ok_or(MapRefusal::OutOfRange)?;
    Ok((extent, shrink(file)))
}

fn shrink(file: BorrowedFd<'_>) -> Shrink {
    match fcntl_get_seals(file) {
        Ok(seals) if seals.contains(SealFlags::SHRINK) => Shrink::Sealed,
        _ => Shrink::Possible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_holds_what_was_asked_for_in_whole_units() {
        let huge = 2 << 20;
        assert_eq!(
            Extent::around(0, 0xa0000, huge),
            Some(Extent {
                start: 0,
                len: huge,
                skip: 0
            })
        );
        let middle = Extent {
            start: huge,
            len: 2 * huge,
            skip: 0xc0000,
        };
        assert_eq!(Extent::around(huge + 0xc0000, huge, huge), Some(middle));
        let exact = Extent {
            start: 0x3000,
            len: 0x2000,
            skip: 0,
        };
        assert_eq!(Extent::around(0x3000, 0x2000, PAGE), Some(exact));
        assert_eq!(Extent::around(u64::MAX - 4095, 4096, PAGE), None);
    }
}
