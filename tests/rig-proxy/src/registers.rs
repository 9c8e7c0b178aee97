//! The subject's registers, by one of two ways.

use anyhow::{Context, Result};
use pagetrail_rig_devices::Registers;
use vfio_user_check::vmm::{Device, MappedArea};

/// The BAR that has the registers.
pub(crate) const BAR: u32 = 0;

/// Each access is a message to the server.
pub(crate) struct Messages<'a>(pub(crate) &'a mut Device);

impl Registers for Messages<'_> {
    fn read32(&mut self, offset: u64) -> Result<u32> {
        Ok(self.0.read32(BAR, offset)?)
    }

    fn write32(&mut self, offset: u64, value: u32) -> Result<()> {
        Ok(self.0.write32(BAR, offset, value)?)
    }
}

/// Each access is one to the device.
pub(crate) struct Mapped<'a>(pub(crate) &'a MappedArea);

impl Registers for Mapped<'_> {
    fn read32(&mut self, offset: u64) -> Result<u32> {
        self.0.load(offset).context("not in the mapping")
    }

    fn write32(&mut self, offset: u64, value: u32) -> Result<()> {
        self.0.store(offset, value).context("not in the mapping")
    }
}
