//! [`Iommufd`]: the calls of the kernel that this module is built on, and their vocabulary.

use std::fmt;
use std::fs::File;
use std::io;

use memmap2::MmapRaw;

use crate::IovaRange;

/// What devices may do with mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// How large the entries of the page tables may be, and with them how coarse reports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// A page of memory each: exact reports, more page table, more misses of the IOMMU's cache.
    Small,
    /// As large as memory allows: a report covers every large page that was written as a whole.
    Large,
}

/// When an IOMMU records writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyControl {
    /// While it is switched on for the page table (Intel VT-d, AMD-Vi). New mappings start clean.
    Global,
    /// Always, by a bit of each entry (Arm SMMUv3). Memory that is mapped for writes while tracking runs starts dirty: its
    /// first report has all of it.
    PerPte,
}

impl fmt::Display for DirtyControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "switched on and off for the whole page table",
            Self::PerPte => "by a bit of each entry: new writable mappings start dirty",
        })
    }
}

/// Names a device bound to the iommufd, an IOAS or a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId(pub(super) u32);

/// Whether a page table is to track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    On,
    Off,
}

/// What reading does to the dirty bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Clear,
    Keep,
}

/// A part of a file, to be mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
}

/// What has to stay as it is as long as memory is mapped.
#[derive(Debug)]
pub(super) enum Hold {
    /// Nothing: the kernel holds the file.
    Nothing,
    /// The memory's addresses in this process, which the kernel looks at again for every page table it makes.
    #[allow(dead_code, reason = "held, never looked at")]
    Addresses(MmapRaw),
}

/// The calls of iommufd, one method for each.
pub(super) trait Iommufd: Send + Sync + fmt::Debug {
    /// A new IOAS, without mappings, whose page tables have such entries.
    fn alloc_ioas(&self, leaves: Leaves) -> io::Result<ObjectId>;

    /// Whether the IOMMU of `device` has dirty bits, and how they are controlled.
    fn dirty_control(&self, device: ObjectId) -> io::Result<Option<DirtyControl>>;

    /// A page table for `device`, which has the mappings of `ioas` from now on. With dirty bits if `control` says so.
    fn alloc_page_table(
        &self,
        device: ObjectId,
        ioas: ObjectId,
        control: Option<DirtyControl>,
    ) -> io::Result<ObjectId>;

    /// Destroys an IOAS, with its mappings, or a page table.
    fn destroy(&self, object: ObjectId) -> io::Result<()>;

    /// Maps memory in all page tables of `ioas`.
    fn map(&self, ioas: ObjectId, range: IovaRange, memory: Memory<'_>, access: Access) -> io::Result<Hold>;

    /// Undoes one [`map`](Self::map).
    fn unmap(&self, ioas: ObjectId, range: IovaRange) -> io::Result<()>;

    /// Switches tracking. Switching it on clears all dirty bits of the page table.
    fn set_tracking(&self, page_table: ObjectId, tracking: Tracking) -> io::Result<()>;

    /// Sets in `bitmap` the bits of the dirty pages of `range`, in granules, the first one being bit 0.
    fn read_dirty(
        &self,
        page_table: ObjectId,
        range: IovaRange,
        bitmap: &mut [u8],
        after: After,
    ) -> io::Result<()>;
}
