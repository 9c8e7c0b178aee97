//! The doorbell page: shared with the client, which may map it and store into it at any time.
//!
//! The page holds what was last stored and nothing else; what the values mean is the ring's to say. The file is sealed, so
//! that a client cannot take the page away under the device by truncating it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::spec;

/// One of the doorbells, by its offset in the page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doorbell {
    /// Descriptors published by the driver.
    RingTail = 0,
    /// Completions consumed by the driver.
    CompHead = 4,
}

/// The doorbell page as the device sees it.
#[derive(Debug)]
pub(super) struct Doorbells {
    page: MmapRegion,
}

impl Doorbells {
    /// A page of zeros, and BAR 0's file, in which it lies at its offset in the BAR.
    pub(super) fn new() -> std::io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("pagetrail-dma-bar0", flags)?;
        rustix::fs::ftruncate(&fd, spec::BAR0_SIZE)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = FileOffset::new(File::from(fd.try_clone()?), spec::DOORBELL_PAGE);
        let page =
            MmapRegion::from_file(file, spec::DOORBELL_PAGE_SIZE as usize).map_err(std::io::Error::other)?;
        Ok((Self { page }, fd))
    }

    /// The doorbell's value. What the driver stored before it is visible afterwards.
    pub(super) fn load(&self, doorbell: Doorbell) -> u32 {
        let value = self
            .page
            .as_volatile_slice()
            .load(doorbell as usize, Ordering::Acquire);
        u32::from_le(value.expect("both doorbells are aligned and within the page"))
    }

    /// Stores into the doorbell, as the driver would.
    pub(super) fn store(&self, doorbell: Doorbell, value: u32) {
        let page = self.page.as_volatile_slice();
        let stored = page.store(value.to_le(), doorbell as usize, Ordering::Release);
        stored.expect("both doorbells are aligned and within the page");
    }

    /// Zeroes both.
    pub(super) fn reset(&self) {
        self.store(Doorbell::RingTail, 0);
        self.store(Doorbell::CompHead, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_into_the_clients_mapping_is_seen() {
        let (doorbells, fd) = Doorbells::new().unwrap();
        let bar = MmapRegion::<()>::from_file(FileOffset::new(File::from(fd), 0), spec::BAR0_SIZE as usize)
            .unwrap();
        bar.as_volatile_slice()
            .store(7u32.to_le(), 0x1004, Ordering::Release)
            .unwrap();
        assert_eq!(doorbells.load(Doorbell::CompHead), 7);
        assert_eq!(doorbells.load(Doorbell::RingTail), 0);
    }

    #[test]
    fn the_client_cannot_truncate_the_page() {
        let (_doorbells, fd) = Doorbells::new().unwrap();
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 1 << 40).is_err());
    }
}
