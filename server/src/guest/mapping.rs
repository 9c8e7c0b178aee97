//! One stretch of guest memory, mapped from the client's file.
//!
//! This is where addresses become pointers: every slice handed out lies within the mapping and borrows from it.
#![allow(unsafe_code)] // Slices of memory that the guest writes at the same time are made here, and only here.

use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use super::error::MapRefusal;
use super::file::{self, AllowedFiles, Shrink};
use super::share::{Reservation, Share};
use super::{Access, sigbus};

/// A part of a client's file in this process's memory. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    // Dropped first: the guard looks after the pages of `memory` and of nothing that comes after it.
    guard: sigbus::Guard,
    memory: MmapRaw,
    // Given back once the memory is unmapped.
    _reservation: Reservation,
    /// Where the client's part begins in `memory`, in bytes.
    skip: usize,
    len: usize,
}

impl Mapping {
    /// Maps `size` bytes at `offset` of `file`.
    pub(super) fn new(
        file: BorrowedFd<'_>,
        offset: u64,
        size: u64,
        access: Access,
        allowed: AllowedFiles,
        share: &Share,
    ) -> Result<(Self, Shrink), MapRefusal> {
        let (extent, shrink) = file::check(file, offset, size, allowed)?;
        let to_usize = |bytes: u64| usize::try_from(bytes).map_err(|_| MapRefusal::OutOfRange);
        let reservation = share.take(extent.len)?;
        let mut options = MmapOptions::new();
        options.offset(extent.start).len(to_usize(extent.len)?);
        let mapped = match access {
            Access::Read => options.map_raw_read_only(file.as_raw_fd()),
            Access::Write => options.map_raw(file.as_raw_fd()),
        };
        let memory = mapped.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM))?;
        let guard = sigbus::guard(&memory)?;
        let mapping = Self {
            guard,
            skip: to_usize(extent.skip)?,
            len: to_usize(size)?,
            memory,
            _reservation: reservation,
        };
        Ok((mapping, shrink))
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Panics
    ///
    /// When they do not lie within the mapping.
    pub(super) fn slice(&self, offset: usize, len: usize) -> VolatileSlice<'_> {
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            is_inside,
            "{len:#x} bytes at {offset:#x} of a mapping of {:#x}",
            self.len
        );
        // SAFETY: `skip + len` bytes from the start of `memory` are mapped (`Extent`), and `offset` is below
        // `len`.
        let address = unsafe { self.memory.as_mut_ptr().add(self.skip + offset) };
        // SAFETY: these bytes lie within `memory`, which is mapped as long as the slice borrows from it, and
        // no other code of this process reaches them but through such slices. A page that its file no longer
        // has is replaced on access (`sigbus`). Callers write only to mappings for writes: `Table` checks.
        unsafe { VolatileSlice::new(address, len) }
    }

    /// Whether an access has found that the file no longer has the page. What was read or written since is
    /// not the guest's.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.guard.has_fired()
    }
}
