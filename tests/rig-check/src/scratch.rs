//! [`Scratch`]: memory that a device needs to be driven, such as queues.

use anyhow::Result;
use pagetrail_tracker::IovaRange;

use crate::memory::{MIB, Memory, PAGE};
use crate::space::range;

/// Beyond all that the checks look at, and not so far that the page table needs more levels for it.
const START: u64 = 1 << 38;
const PAGES: u64 = 4;

/// Pages that a device has for itself in every address space.
pub(crate) struct Scratch {
    memory: Memory,
    start: u64,
}

impl Scratch {
    /// That of the device so numbered.
    pub(crate) fn new(device: usize) -> Result<Self> {
        Ok(Self {
            memory: Memory::small(PAGES * PAGE)?,
            start: START + device as u64 * MIB,
        })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where devices find it.
    pub(crate) fn range(&self) -> IovaRange {
        range(self.start, PAGES * PAGE)
    }

    /// Where devices find one of its pages.
    pub(crate) fn page(&self, number: u64) -> IovaRange {
        range(self.start + number * PAGE, PAGE)
    }

    /// Where in its memory a range is.
    pub(crate) fn offset_of(&self, range: IovaRange) -> u64 {
        range.start().get() - self.start
    }
}
