//! `VFIO_USER_DEVICE_GET_INFO`, `VFIO_USER_DEVICE_GET_REGION_INFO`, `VFIO_USER_REGION_READ` and `VFIO_USER_REGION_WRITE`.
//!
//! The structures of the first two are the kernel's, too (Linux `include/uapi/linux/vfio.h`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_user_region_access` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    /// Bytes.
    pub(crate) count: u32,
}

/// The region that is config space.
pub(crate) const CONFIG_REGION: u32 = 7;

/// `struct vfio_device_info` without the offset of capabilities, of which there are none.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct DeviceInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) num_regions: u32,
    pub(crate) num_irqs: u32,
}

bitflags! {
    /// [`DeviceInfo::flags`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct DeviceFlags: u32 {
        const RESET = 1 << 0;
        const PCI = 1 << 1;
    }
}

/// `struct vfio_region_info` without its capabilities.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct RegionInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    /// Where the first capability is, in bytes; 0 if there is none.
    pub(crate) cap_offset: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Where the region begins in the file that it is mapped from, in bytes.
    pub(crate) offset: u64,
}

bitflags! {
    /// [`RegionInfo::flags`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct RegionFlags: u32 {
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        const MMAP = 1 << 2;
        const CAPS = 1 << 3;
    }
}

/// `struct vfio_region_info_cap_sparse_mmap` without its areas: its header, how many there are, and nothing.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct SparseMmap {
    pub(crate) id: u16,
    pub(crate) version: u16,
    /// Where the next capability is, in bytes; 0 after the last one.
    pub(crate) next: u32,
    pub(crate) nr_areas: u32,
    pub(crate) reserved: u32,
}

/// The value of [`SparseMmap::id`].
pub(crate) const SPARSE_MMAP: u16 = 1;

/// `struct vfio_region_sparse_mmap_area`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct SparseArea {
    /// In the region, in bytes.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) size: u64,
}
