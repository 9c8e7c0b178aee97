//! A guest for tests: memory that a device reaches by its [`Dma`] handle and the test by its own.
//!
//! Nothing here is a mock: the memory is a sealed memfd, mapped as a client's is, and tracked.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::{DirtyTracker, Iova, IovaRange, PageSize, ReportBitmap, SoftwareTracker};
use rustix::fs::{MemfdFlags, SealFlags};

use super::{Access, AllowedFiles, BusMaster, Dma, DmaSpace, MapRequest, Share};

/// A guest whose RAM begins at one IOVA, with bus mastering on.
///
/// Every method panics when it fails: a test has nothing better to do.
#[derive(Debug)]
pub struct Guest {
    space: DmaSpace,
    tracker: Arc<SoftwareTracker>,
    memory: File,
    ram: IovaRange,
}

impl Guest {
    /// A guest with `size` bytes of RAM, a multiple of 4 KiB, from IOVA 0 on.
    pub fn new(size: u64) -> Self {
        Self::at(0, size)
    }

    /// A guest with `size` bytes of RAM from `base` on, both multiples of 4 KiB.
    pub fn at(base: u64, size: u64) -> Self {
        let tracker = Arc::new(SoftwareTracker::new().expect("address space for a tracker"));
        let space = DmaSpace::new(
            Arc::clone(&tracker),
            AllowedFiles::TmpfsAndHugetlbfs,
            Share::of_the_rest(),
        );
        space.set_bus_master(BusMaster::On);
        let memory = memfd(size);
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK).expect("a seal");
        let guest = Self {
            space,
            tracker,
            memory,
            ram: IovaRange::from_len(Iova::new(base), size).expect("memory"),
        };
        guest.map_ram();
        guest
    }

    /// Another guest with the same RAM contents: what a migration makes.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let other = Self::at(self.base(), self.ram.len());
        let mut page = vec![0; PageSize::SIZE_4K.bytes() as usize];
        for iova in (self.base()..=self.ram.last().get()).step_by(page.len()) {
            self.read(iova, &mut page);
            if page.iter().any(|byte| *byte != 0) {
                other.write(iova, &page);
            }
        }
        other
    }

    /// Stops the device's DMA.
    pub fn suspend(&self) {
        self.space
            .suspend(Instant::now() + Duration::from_secs(10))
            .expect("no lease is held");
    }

    /// Maps all of the RAM, which is mapped already unless the test has unmapped it.
    pub fn map_ram(&self) {
        let fd = self.memory.try_clone().expect("a file descriptor");
        let request = MapRequest {
            iova: self.base(),
            size: self.ram.len(),
            offset: 0,
            access: Access::Write,
            fd: Some(fd.into()),
        };
        self.space.map(request).expect("mapped memory");
    }

    /// Unmaps all of the RAM.
    pub fn unmap_ram(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        self.space
            .unmap(self.base(), self.ram.len(), deadline)
            .expect("unmapped memory");
    }

    /// First IOVA of the RAM.
    pub fn base(&self) -> u64 {
        self.ram.start().get()
    }

    /// The owner's side.
    pub fn space(&self) -> &DmaSpace {
        &self.space
    }

    /// The device's side.
    pub fn dma(&self) -> Dma {
        self.space.dma()
    }

    /// The tracker of the device's writes. Tracking is off until it is started.
    pub fn tracker(&self) -> &Arc<SoftwareTracker> {
        &self.tracker
    }

    /// The file behind the RAM: its offset 0 is at [`base`](Self::base).
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// What the guest's CPU sees at `iova`, whether or not it is mapped for the device.
    pub fn read(&self, iova: u64, data: &mut [u8]) {
        self.memory
            .read_exact_at(data, iova - self.base())
            .expect("guest memory");
    }

    /// Has the guest's CPU write at `iova`, which is not tracked.
    pub fn write(&self, iova: u64, data: &[u8]) {
        self.memory
            .write_all_at(data, iova - self.base())
            .expect("guest memory");
    }

    /// Starts dirty tracking of the RAM.
    pub fn start_tracking(&self) {
        self.tracker
            .start(&[self.ram], PageSize::SIZE_4K)
            .expect("tracking");
    }

    /// IOVAs of the 4 KiB pages that the device wrote since the last call, in order. Tracking must be on.
    pub fn take_dirty(&self) -> Vec<u64> {
        let len = ReportBitmap::required_len(self.ram, PageSize::SIZE_4K).expect("a bitmap's size");
        let mut bytes = vec![0; len];
        let mut report = ReportBitmap::new(self.ram, PageSize::SIZE_4K, &mut bytes).expect("a bitmap");
        self.tracker.read_and_clear(&mut report).expect("a report");
        let pages = (self.base()..=self.ram.last().get()).step_by(PageSize::SIZE_4K.bytes() as usize);
        pages.filter(|&page| report.is_dirty(Iova::new(page))).collect()
    }
}

/// A file of `size` bytes that may be guest memory, not sealed yet.
pub fn memfd(size: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("guest", flags).expect("a memfd"));
    file.set_len(size).expect("memory");
    file
}
