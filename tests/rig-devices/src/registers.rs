//! [`Registers`]: how a device's registers are reached.

use anyhow::Result;

/// The registers in a device's BAR 0, by their offsets.
pub trait Registers {
    /// Reads a register of 32 bits.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    fn read32(&mut self, offset: u64) -> Result<u32>;

    /// Writes a register of 32 bits.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    fn write32(&mut self, offset: u64, value: u32) -> Result<()>;

    /// Reads a register of 64 bits: by its halves, if there is no other way.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    fn read64(&mut self, offset: u64) -> Result<u64> {
        let low = self.read32(offset)?;
        Ok(u64::from(self.read32(offset + 4)?) << 32 | u64::from(low))
    }

    /// Writes a register of 64 bits: by its halves, if there is no other way, the lower one first.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    fn write64(&mut self, offset: u64, value: u64) -> Result<()> {
        self.write32(offset, value as u32)?;
        self.write32(offset + 4, (value >> 32) as u32)
    }
}
