//! [`Memory`]: memory that devices write and the checks look at.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use pagetrail_rig_devices::{MIB, Memory as _, PAGE};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Memory in a file without a name, zeros at first. Clones are the same memory.
#[derive(Clone)]
pub(crate) struct Memory {
    file: Arc<File>,
    mapped: Arc<MmapRegion>,
}

impl Memory {
    /// `len` bytes, in pages of 4 KiB.
    pub(crate) fn small(len: u64) -> Result<Self> {
        Self::new(len, MemfdFlags::CLOEXEC)
    }

    /// `len` bytes, in pages of 2 MiB, which the machine is asked to have.
    pub(crate) fn large(len: u64) -> Result<Self> {
        let pages = len / (2 * MIB);
        std::fs::write("/proc/sys/vm/nr_hugepages", pages.to_string()).context("cannot get large pages")?;
        Self::new(
            len,
            MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        )
    }

    fn new(len: u64, flags: MemfdFlags) -> Result<Self> {
        let file = memfd_create("rig-check", flags).context("no memory of this kind")?;
        ftruncate(&file, len)?;
        let file = Arc::new(File::from(file));
        let mapped = MmapRegion::from_file(FileOffset::from_arc(file.clone(), 0), len as usize)?;
        Ok(Self {
            file,
            mapped: Arc::new(mapped),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What `page` holds.
    pub(crate) fn page(&self, page: u64) -> Result<Vec<u8>> {
        self.bytes(page * PAGE, PAGE)
    }

    /// `len` bytes from `start` on.
    pub(crate) fn bytes(&self, start: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.read(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Makes zeros of `len` bytes.
    pub(crate) fn clear(&self, start: u64, len: u64) -> Result<()> {
        self.write(start, &vec![0; len as usize])
    }
}

/// Devices find it at address 0.
impl pagetrail_rig_devices::Memory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self
            .mapped
            .as_volatile_slice()
            .read_slice(bytes, address as usize)?)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self
            .mapped
            .as_volatile_slice()
            .write_slice(bytes, address as usize)?)
    }

    fn load32(&self, address: u64) -> Result<u32> {
        let bytes: u32 = self
            .mapped
            .as_volatile_slice()
            .load(address as usize, Ordering::Acquire)?;
        Ok(u32::from_le(bytes))
    }
}
