//! `VFIO_USER_MIG_DATA_READ`, `VFIO_USER_MIG_DATA_WRITE` and pre-copy information.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_user_mig_data` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct MigrationData {
    pub(crate) argsz: u32,
    /// Bytes.
    pub(crate) size: u32,
}

/// `struct vfio_precopy_info`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct PrecopyInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    /// Bytes.
    pub(crate) initial_bytes: u64,
    /// Bytes.
    pub(crate) dirty_bytes: u64,
}
