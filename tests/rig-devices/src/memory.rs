//! [`Memory`]: memory that devices write and that drivers and checks look at.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;

use crate::pages::PAGE;

/// Memory, by the addresses that devices find it at.
pub trait Memory: Send + Sync {
    /// Copies bytes from memory.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Copies bytes to memory.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;

    /// The aligned four bytes at `address`, as one. What a device wrote before them is seen afterwards.
    ///
    /// # Errors
    ///
    /// There is no memory.
    fn load32(&self, address: u64) -> Result<u32>;
}

/// Pages of a [`Scratch`].
pub const SCRATCH_PAGES: u64 = 4;

/// Memory that a device has for itself, for queues and the like: [`SCRATCH_PAGES`], which devices may write.
#[derive(Clone)]
pub struct Scratch {
    /// What it is part of.
    pub memory: Arc<dyn Memory>,
    /// Where devices find it.
    pub start: u64,
}

impl Scratch {
    /// Where devices find one of its pages.
    pub fn page(&self, number: u64) -> Range<u64> {
        let start = self.start + number * PAGE;
        start..start + PAGE
    }
}
