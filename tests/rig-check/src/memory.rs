//! [`Memory`]: memory that devices write and the checks look at, by its file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;

/// Memory in a file without a name.
pub(crate) struct Memory {
    pub(crate) file: File,
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
        Ok(Self { file: file.into() })
    }

    /// What `page` holds.
    pub(crate) fn page(&self, page: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE as usize];
        self.file.read_exact_at(&mut bytes, page * PAGE)?;
        Ok(bytes)
    }
}
