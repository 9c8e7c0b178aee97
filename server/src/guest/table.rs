//! The mappings of one connection, by IOVA.
//!
//! Sorted and without overlaps, so that an address is found by bisection. A table only finds and checks; who
//! may look while it changes is decided by its owner ([`super::space`]).

use std::sync::Arc;

use pagetrail_tracker::{IOVA_END, Iova, IovaRange};
use vm_memory::VolatileSlice;

use super::error::{DmaError, MapRefusal};
use super::file::PAGE;
use super::mapping::Mapping;
use super::{Access, UnmapError};

/// Mappings that a connection may have at a time, the protocol's default (`max_dma_maps`).
pub(crate) const MAX_ENTRIES: usize = 65535;

/// What is behind an entry's addresses.
#[derive(Debug, Clone)]
pub(super) enum Backing {
    /// Memory.
    Memory(Arc<Mapping>),
    /// Nothing that can be reached: the mapping came without a file descriptor.
    Unreachable,
}

/// Whether new accesses to an entry may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// They may.
    Open,
    /// An unmap is under way: they may not.
    Closing,
}

/// One mapping.
#[derive(Debug)]
pub(super) struct Entry {
    range: IovaRange,
    access: Access,
    backing: Backing,
    phase: Phase,
}

/// A stretch of one mapping, checked for an access.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    /// First IOVA.
    pub(super) iova: u64,
    /// The memory.
    pub(super) mapping: &'a Arc<Mapping>,
    /// Where it begins in the mapping, in bytes.
    pub(super) offset: usize,
    /// Bytes, at least one.
    pub(super) len: usize,
}

impl<'a> Piece<'a> {
    /// Its bytes.
    pub(super) fn slice(&self) -> VolatileSlice<'a> {
        self.mapping.slice(self.offset, self.len)
    }

    /// Its IOVAs.
    #[inline]
    pub(super) fn range(&self) -> IovaRange {
        IovaRange::from_len(Iova::new(self.iova), self.len as u64).expect("a piece of a mapping")
    }

    /// Its first `len` bytes, if there are more.
    pub(super) fn first(self, len: usize) -> Self {
        Self {
            len: self.len.min(len),
            ..self
        }
    }

    /// An error if the memory failed by now.
    #[inline]
    pub(super) fn verify(&self) -> Result<(), DmaError> {
        if self.mapping.has_failed() {
            return Err(DmaError::MemoryFailed(self.iova));
        }
        Ok(())
    }
}

/// The IOVAs of a mapping, if there can be one there.
pub(crate) fn range_of(iova: u64, size: u64, offset: u64) -> Result<IovaRange, MapRefusal> {
    if size == 0 {
        return Err(MapRefusal::Empty);
    }
    if [iova, size, offset]
        .iter()
        .any(|value| !value.is_multiple_of(PAGE))
    {
        return Err(MapRefusal::Misaligned);
    }
    let range = IovaRange::from_len(Iova::new(iova), size).map_err(|_| MapRefusal::OutOfRange)?;
    if range.last().get() >= IOVA_END {
        return Err(MapRefusal::OutOfRange);
    }
    Ok(range)
}

/// The mappings of one connection.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By IOVA; disjoint.
    entries: Vec<Entry>,
}

impl Table {
    /// Adds a mapping.
    pub(super) fn insert(
        &mut self,
        range: IovaRange,
        access: Access,
        backing: Backing,
    ) -> Result<(), MapRefusal> {
        let at = self
            .entries
            .partition_point(|entry| entry.range.last() < range.start());
        if let Some(next) = self.entries.get(at)
            && next.range.overlaps(&range)
        {
            return Err(MapRefusal::Overlap(next.range.start().get()));
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(MapRefusal::TooMany);
        }
        let entry = Entry {
            range,
            access,
            backing,
            phase: Phase::Open,
        };
        self.entries.insert(at, entry);
        Ok(())
    }

    /// Lets no new access to a mapping begin.
    pub(super) fn close(&mut self, iova: u64, size: u64) -> Result<IovaRange, UnmapError> {
        let at = self
            .exactly(iova, size)
            .ok_or(UnmapError::NotMapped { iova, size })?;
        self.entries[at].phase = Phase::Closing;
        Ok(self.entries[at].range)
    }

    /// Lets no new access to any mapping begin.
    pub(super) fn close_all(&mut self) {
        for entry in &mut self.entries {
            entry.phase = Phase::Closing;
        }
    }

    /// Takes a closed mapping out. `None` when it is gone already.
    pub(super) fn remove(&mut self, range: IovaRange) -> Option<Entry> {
        let at = self.exactly(range.start().get(), range.len())?;
        let is_closed = self.entries[at].phase == Phase::Closing;
        is_closed.then(|| self.entries.remove(at))
    }

    /// Takes all closed mappings out.
    pub(super) fn remove_all(&mut self) -> Vec<Entry> {
        let is_closed = |entry: &mut Entry| entry.phase == Phase::Closing;
        self.entries.extract_if(.., is_closed).collect()
    }

    /// Checks that every byte may be accessed.
    #[inline]
    pub(super) fn check(&self, iova: u64, len: u64, access: Access) -> Result<(), DmaError> {
        if len == 0 {
            return Ok(());
        }
        let Ok(range) = IovaRange::from_len(Iova::new(iova), len) else {
            return Err(DmaError::NotMapped(iova));
        };
        let mut next = iova;
        loop {
            let (entry, mapping) = self.find(next, access)?;
            if mapping.has_failed() {
                return Err(DmaError::MemoryFailed(next));
            }
            if entry.range.last() >= range.last() {
                return Ok(());
            }
            // No overflow: an entry ends below 2^52.
            next = entry.range.last().get() + 1;
        }
    }

    /// The part of the range that lies in one mapping, from its first byte on. `len` is not zero.
    #[inline]
    pub(super) fn piece(&self, iova: u64, len: usize, access: Access) -> Result<Piece<'_>, DmaError> {
        let (entry, mapping) = self.find(iova, access)?;
        let offset = (iova - entry.range.start().get()) as usize;
        let piece = Piece {
            iova,
            mapping,
            offset,
            len: len.min(mapping.len() - offset),
        };
        piece.verify()?;
        Ok(piece)
    }

    #[inline]
    fn find(&self, iova: u64, access: Access) -> Result<(&Entry, &Arc<Mapping>), DmaError> {
        let at = self
            .entries
            .partition_point(|entry| entry.range.last().get() < iova);
        let entry = self
            .entries
            .get(at)
            .filter(|entry| entry.range.start().get() <= iova);
        let Some(entry) = entry.filter(|entry| entry.phase == Phase::Open) else {
            return Err(DmaError::NotMapped(iova));
        };
        let Backing::Memory(mapping) = &entry.backing else {
            return Err(DmaError::Unreachable(iova));
        };
        if access == Access::Write && entry.access == Access::Read {
            return Err(DmaError::Denied(iova));
        }
        Ok((entry, mapping))
    }

    fn exactly(&self, iova: u64, size: u64) -> Option<usize> {
        let at = self
            .entries
            .partition_point(|entry| entry.range.start().get() < iova);
        let range = self.entries.get(at)?.range;
        (range.start().get() == iova && range.len() == size).then_some(at)
    }
}
