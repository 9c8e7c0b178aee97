//! Structures of `include/uapi/linux/vfio.h` that the wire has not taken over.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_device_bind_iommufd` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Bind {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) iommufd: i32,
    pub(super) out_devid: u32,
}

/// `struct vfio_device_attach_iommufd_pt` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Attach {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) pt_id: u32,
}

/// `struct vfio_device_detach_iommufd_pt` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Detach {
    pub(super) argsz: u32,
    pub(super) flags: u32,
}

/// `struct vfio_device_feature_dma_logging_control`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LoggingControl {
    pub(super) page_size: u64,
    pub(super) num_ranges: u32,
    pub(super) reserved: u32,
    /// Address of [`LoggingRange`](crate::wire::feature::LoggingRange)s.
    pub(super) ranges: u64,
}
