//! The IOMMU tracker's side.

use std::sync::Arc;

use anyhow::Result;
use pagetrail_rig_devices::{MIB, PAGE};
use pagetrail_tracker::{Access, Leaves};

use super::{MEMORY, Reading, START, Side, starts};
use crate::device::Device;
use crate::memory::Memory;
use crate::space::{Space, range};

/// What a device writes at a time when it writes everything.
const CHUNK: u64 = 32 * MIB;

/// An address space that is tracked.
pub(super) struct Tracked {
    space: Space,
    reading: Reading,
}

impl Tracked {
    pub(super) fn new(device: &Arc<Device>, len: u64) -> Result<Self> {
        let space = Space::empty(device, Memory::small(MEMORY)?, Leaves::Small)?;
        let reading = Reading::of(len)?;
        for start in starts(reading.all, MEMORY) {
            space
                .ioas
                .map(range(start, MEMORY), space.memory.file(), 0, Access::Write)?;
        }
        space.start(&[reading.all])?;
        Ok(Self { space, reading })
    }
}

impl Side for Tracked {
    fn write(&mut self, pages: u64) -> Result<()> {
        let all = self.reading.all;
        let of_all = all.len() / PAGE;
        let written: Vec<_> = if pages == of_all {
            starts(all, CHUNK).map(|start| start..start + CHUNK).collect()
        } else {
            let starts = (0..pages).map(|page| START + page * (of_all / pages) * PAGE);
            starts.map(|start| start..start + 4).collect()
        };
        self.space.device.write(&written)
    }

    fn read(&mut self, pages: u64) -> Result<f64> {
        self.reading.time(self.space.tracker(), pages)
    }
}
