//! `VFIO_USER_DMA_MAP` and `VFIO_USER_DMA_UNMAP`.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_user_dma_map`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct DmaMap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    /// Offset in the file, in bytes.
    pub(crate) offset: u64,
    /// IOVA.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
}

bitflags! {
    /// Flags of a map.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct MapFlags: u32 {
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        /// Access by mapping the file; what is done in any case.
        const MMAP = 1 << 2;
        /// Access by reading and writing the file; not offered.
        const FILE_IO = 1 << 3;
    }
}

/// `struct vfio_user_dma_unmap` without its bitmap.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct DmaUnmap {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    /// IOVA.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
}

bitflags! {
    /// Flags of an unmap.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct UnmapFlags: u32 {
        /// The reply carries the dirty bitmap of what is unmapped.
        const GET_DIRTY_BITMAP = 1 << 0;
        /// Every mapping.
        const ALL = 1 << 1;
    }
}

/// `struct vfio_user_bitmap` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct Bitmap {
    /// Bytes of guest memory for one bit.
    pub(crate) page_size: u64,
    /// Bytes of bitmap.
    pub(crate) size: u64,
}
