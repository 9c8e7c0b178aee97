//! Memory of the machine, mapped into the program: registers and the window for DMA.
// Mappings of devices are raw pointers; every access checks its bounds first.
#![allow(unsafe_code)]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::memory::Memory;

/// An access outside of a mapping.
#[derive(Debug, thiserror::Error)]
#[error("{length} bytes at {address:#x} are not mapped")]
pub(super) struct OutOfBounds {
    address: u64,
    length: usize,
}

/// A mapping whose first byte has the address `base`.
#[derive(Clone)]
pub(super) struct Mapped {
    map: Arc<MmapRaw>,
    base: u64,
}

impl Mapped {
    /// Maps `length` bytes of a file from `offset` on.
    pub(super) fn new(file: &File, offset: u64, length: usize, base: u64) -> std::io::Result<Self> {
        let map = MmapOptions::new().offset(offset).len(length).map_raw(file)?;
        Ok(Self {
            map: Arc::new(map),
            base,
        })
    }

    fn at(&self, address: u64, length: usize) -> Result<*mut u8, OutOfBounds> {
        let error = OutOfBounds { address, length };
        let Some(offset) = address.checked_sub(self.base) else {
            return Err(error);
        };
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.map.len() as u64 => {
                // SAFETY: the offset lies in the mapping.
                Ok(unsafe { self.map.as_mut_ptr().add(offset as usize) })
            }
            _ => Err(error),
        }
    }

    /// A pointer to an aligned register.
    fn register<T>(&self, address: u64) -> Result<*mut T, OutOfBounds> {
        let pointer = self.at(address, size_of::<T>())?.cast::<T>();
        if pointer.is_aligned() {
            return Ok(pointer);
        }
        Err(OutOfBounds {
            address,
            length: size_of::<T>(),
        })
    }

    /// Loads a register.
    pub(super) fn load32(&self, address: u64) -> Result<u32, OutOfBounds> {
        let pointer = self.register::<u32>(address)?;
        // SAFETY: mapped for as long as `self`, and aligned.
        Ok(u32::from_le(unsafe { pointer.read_volatile() }))
    }

    /// Stores into a register, after everything that was written to memory.
    pub(super) fn store32(&self, address: u64, value: u32) -> Result<(), OutOfBounds> {
        let pointer = self.register::<u32>(address)?;
        fence(Ordering::SeqCst);
        // SAFETY: mapped for as long as `self`, and aligned.
        unsafe { pointer.write_volatile(value.to_le()) };
        Ok(())
    }

    /// Loads a register.
    pub(super) fn load64(&self, address: u64) -> Result<u64, OutOfBounds> {
        let pointer = self.register::<u64>(address)?;
        // SAFETY: mapped for as long as `self`, and aligned.
        Ok(u64::from_le(unsafe { pointer.read_volatile() }))
    }

    /// Stores into a register, after everything that was written to memory.
    pub(super) fn store64(&self, address: u64, value: u64) -> Result<(), OutOfBounds> {
        let pointer = self.register::<u64>(address)?;
        fence(Ordering::SeqCst);
        // SAFETY: mapped for as long as `self`, and aligned.
        unsafe { pointer.write_volatile(value.to_le()) };
        Ok(())
    }
}

impl Memory for Mapped {
    type Error = OutOfBounds;

    fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), OutOfBounds> {
        let pointer = self.at(iova, target.len())?;
        // SAFETY: mapped for as long as `self`, and apart from `target`. The device may be writing: what is read then is used for
        // nothing before the device has said that it is done.
        unsafe { pointer.copy_to_nonoverlapping(target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    fn write(&self, iova: u64, data: &[u8]) -> Result<(), OutOfBounds> {
        let pointer = self.at(iova, data.len())?;
        // SAFETY: mapped for as long as `self`, and apart from `data`.
        unsafe { pointer.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        Ok(())
    }

    fn load_acquire(&self, iova: u64) -> Result<u32, OutOfBounds> {
        let value = self.load32(iova)?;
        fence(Ordering::Acquire);
        Ok(value)
    }
}
