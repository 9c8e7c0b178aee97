//! Memory that a device needs to be driven, such as queues.

use std::sync::Arc;

use anyhow::Result;
use pagetrail_rig_devices::{MIB, PAGE, SCRATCH_PAGES, Scratch};
use pagetrail_tracker::{Access, KernelIoas};

use crate::memory::Memory;
use crate::space::range;

/// Beyond all that the checks look at, and not so far that the page table needs more levels for it.
const START: u64 = 1 << 38;

/// What a device has for itself, at the same place in every address space.
pub(crate) struct OwnMemory {
    memory: Memory,
    start: u64,
}

impl OwnMemory {
    /// That of the device so numbered.
    pub(crate) fn new(device: usize) -> Result<Self> {
        Ok(Self {
            memory: Memory::small(SCRATCH_PAGES * PAGE)?,
            start: START + device as u64 * MIB,
        })
    }

    pub(crate) fn map(&self, ioas: &KernelIoas) -> Result<()> {
        let all = range(self.start, SCRATCH_PAGES * PAGE);
        Ok(ioas.map(all, self.memory.file(), 0, Access::Write)?)
    }

    /// As the device's driver has it.
    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            memory: Arc::new(At {
                memory: self.memory.clone(),
                start: self.start,
            }),
            start: self.start,
        }
    }
}

/// Memory that devices find at `start`.
struct At {
    memory: Memory,
    start: u64,
}

impl pagetrail_rig_devices::Memory for At {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.memory.read(address - self.start, bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address - self.start, bytes)
    }

    fn load32(&self, address: u64) -> Result<u32> {
        self.memory.load32(address - self.start)
    }
}
