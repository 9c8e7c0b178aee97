//! Memory that a device and its driver share.

use std::sync::Arc;

/// The unit of a generator's writes, and of guest memory everywhere.
pub const PAGE_SIZE: u64 = 4096;

/// Memory that a device reaches by IOVA while its driver works on it.
pub trait Memory {
    /// Why an access fails.
    type Error;

    /// Reads `target.len()` bytes from `iova` on.
    ///
    /// # Errors
    ///
    /// There is no memory there.
    fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `data` from `iova` on.
    ///
    /// # Errors
    ///
    /// There is no memory there.
    fn write(&self, iova: u64, data: &[u8]) -> Result<(), Self::Error>;

    /// Loads an aligned 32-bit word; what the device wrote before it is seen by reads after it.
    ///
    /// # Errors
    ///
    /// There is no memory there.
    fn load_acquire(&self, iova: u64) -> Result<u32, Self::Error>;
}

impl<M: Memory> Memory for Arc<M> {
    type Error = M::Error;

    fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), Self::Error> {
        M::read(self, iova, target)
    }

    fn write(&self, iova: u64, data: &[u8]) -> Result<(), Self::Error> {
        M::write(self, iova, data)
    }

    fn load_acquire(&self, iova: u64) -> Result<u32, Self::Error> {
        M::load_acquire(self, iova)
    }
}

/// Memory for tests.
#[cfg(test)]
pub(crate) struct Flat {
    base: u64,
    bytes: std::cell::RefCell<Vec<u8>>,
}

#[cfg(test)]
impl Flat {
    /// `size` zeroes at `base`.
    pub(crate) fn new(base: u64, size: u64) -> Self {
        let bytes = vec![0; size as usize].into();
        Self { base, bytes }
    }

    fn place(&self, iova: u64, length: usize) -> Result<std::ops::Range<usize>, &'static str> {
        let start = iova.checked_sub(self.base).ok_or("below the memory")? as usize;
        let end = start + length;
        (end <= self.bytes.borrow().len())
            .then_some(start..end)
            .ok_or("above the memory")
    }
}

#[cfg(test)]
impl Memory for Flat {
    type Error = &'static str;

    fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), Self::Error> {
        let place = self.place(iova, target.len())?;
        target.copy_from_slice(&self.bytes.borrow()[place]);
        Ok(())
    }

    fn write(&self, iova: u64, data: &[u8]) -> Result<(), Self::Error> {
        let place = self.place(iova, data.len())?;
        self.bytes.borrow_mut()[place].copy_from_slice(data);
        Ok(())
    }

    fn load_acquire(&self, iova: u64) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.read(iova, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}
