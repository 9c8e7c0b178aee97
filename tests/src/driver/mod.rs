//! A driver for the reference device `dma` (its register map is `docs/src/dma-device.md`).
//!
//! [`Dma`] reads and writes registers, [`Ring`] is the driver's half of the descriptor and completion rings, and
//! [`Generator`] knows what the device's generator has written at given positions, on either side of a migration.
//!
//! Everything a guest would keep in its memory ([`Ring`], [`Generator`]) is apart from the connection, so that it goes on
//! with another device after a migration.

mod dma;

pub use dma::{Dma, DriverError};
pub use pagetrail_guest::{
    Completion, Descriptor, Generator, LaneWrite, Mismatch, Operation, check_window, regs,
};

use std::sync::Arc;

use crate::vmm::{GuestMemory, MemoryError};

/// A ring in the embedded VMM's guest memory.
pub type Ring = pagetrail_guest::Ring<Arc<GuestMemory>>;

impl pagetrail_guest::Memory for GuestMemory {
    type Error = MemoryError;

    fn read(&self, iova: u64, target: &mut [u8]) -> Result<(), MemoryError> {
        GuestMemory::read(self, iova, target)
    }

    fn write(&self, iova: u64, data: &[u8]) -> Result<(), MemoryError> {
        GuestMemory::write(self, iova, data)
    }

    fn load_acquire(&self, iova: u64) -> Result<u32, MemoryError> {
        GuestMemory::load_acquire(self, iova)
    }
}
