//! QEMU's `iommu-testdev`, which writes at once; see its `include/hw/misc/iommu-testdev.h`.

use std::ops::Range;

use anyhow::{Result, bail};

use super::{Engine, Landing, Limits, Outcome, Reads};
use crate::memory::Scratch;
use crate::race::Goal;
use crate::registers::Registers;

pub(super) const LIMITS: Limits = Limits {
    unit: 1,
    depth: 64,
    pages: 500,
    race: Goal {
        writes: 500_000,
        reads: 2000,
    },
    reads: Reads::No,
    landing: Landing::AtOnce,
};

const TRIGGER: u64 = 0x00;
const IOVA_LOW: u64 = 0x04;
const IOVA_HIGH: u64 = 0x08;
const LEN: u64 = 0x0c;
const RESULT: u64 = 0x10;
const DOORBELL: u64 = 0x14;

const ARM: u32 = 1;
/// The device writes, and then compares with what the machine has at an address that nobody has told it: no matter what it finds.
const DONE: [u32; 2] = [0, 0xdead_0004];
const STOPPED: u32 = 0xdead_0002;

/// What registers hold that rarely change: each access takes its time.
#[derive(Default)]
pub(super) struct Testdev {
    iova_high: Option<u32>,
    len: Option<u32>,
}

impl Testdev {
    fn write_one(&mut self, registers: &mut dyn Registers, range: &Range<u64>) -> Result<Outcome> {
        let len = u32::try_from(range.end - range.start)?;
        let high = (range.start >> 32) as u32;
        if self.iova_high.replace(high) != Some(high) {
            registers.write32(IOVA_HIGH, high)?;
        }
        if self.len.replace(len) != Some(len) {
            registers.write32(LEN, len)?;
        }
        registers.write32(IOVA_LOW, range.start as u32)?;
        registers.write32(DOORBELL, ARM)?;
        registers.read32(TRIGGER)?;
        match registers.read32(RESULT)? {
            STOPPED => Ok(Outcome::Stopped),
            result if DONE.contains(&result) => Ok(Outcome::Written),
            result => bail!("iommu-testdev answers {result:#x} to a write of {range:#x?}"),
        }
    }
}

impl Engine for Testdev {
    fn begin(&mut self, _: &mut dyn Registers, _: &Scratch) -> Result<()> {
        *self = Self::default();
        Ok(())
    }

    fn write(&mut self, registers: &mut dyn Registers, ranges: &[Range<u64>]) -> Result<Outcome> {
        let mut outcome = Outcome::Written;
        for range in ranges {
            if self.write_one(registers, range)? == Outcome::Stopped {
                outcome = Outcome::Stopped;
            }
        }
        Ok(outcome)
    }

    fn read(&mut self, _: &mut dyn Registers, _: Range<u64>) -> Result<()> {
        bail!("iommu-testdev does not read memory through the IOMMU")
    }
}
