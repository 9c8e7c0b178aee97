//! QEMU's `iommu-testdev`, which writes at once; see its `include/hw/misc/iommu-testdev.h`.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use pagetrail_tracker::IovaRange;

use super::{Engine, Landing, Limits, Reads};
use crate::registers::Registers;
use crate::scratch::Scratch;

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

pub(super) struct Testdev {
    registers: Registers,
    set: Mutex<Set>,
}

/// What registers hold that rarely change: each access is a system call.
#[derive(Default)]
struct Set {
    iova_high: Option<u32>,
    len: Option<u32>,
}

impl Testdev {
    pub(super) fn new(registers: Registers) -> Self {
        Self {
            registers,
            set: Mutex::default(),
        }
    }

    fn write_one(&self, set: &mut Set, range: IovaRange) -> Result<()> {
        let registers = &self.registers;
        let (iova, len) = (range.start().get(), u32::try_from(range.len())?);
        let high = (iova >> 32) as u32;
        if set.iova_high.replace(high) != Some(high) {
            registers.set32(IOVA_HIGH, high);
        }
        if set.len.replace(len) != Some(len) {
            registers.set32(LEN, len);
        }
        registers.set32(IOVA_LOW, iova as u32);
        registers.set32(DOORBELL, ARM);
        registers.get32(TRIGGER);
        match registers.get32(RESULT) {
            STOPPED => Ok(()),
            result if DONE.contains(&result) => Ok(()),
            result => bail!("iommu-testdev answers {result:#x} to a write of {range}"),
        }
    }
}

impl Engine for Testdev {
    fn name(&self) -> &'static str {
        "iommu-testdev"
    }

    fn limits(&self) -> Limits {
        Limits {
            unit: 1,
            depth: 1,
            pages: 500,
            race: u64::MAX,
            reads: Reads::No,
            landing: Landing::AtOnce,
        }
    }

    fn begin(&self, _: &Scratch) -> Result<()> {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Set::default();
        Ok(())
    }

    fn write(&self, ranges: &[IovaRange]) -> Result<()> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        ranges
            .iter()
            .try_for_each(|range| self.write_one(&mut set, *range))
    }

    fn read(&self, _: IovaRange) -> Result<()> {
        bail!("iommu-testdev does not read memory through the IOMMU")
    }
}
