//! `VFIO_USER_DEVICE_FEATURE` and the structures of the features that are offered (Linux `include/uapi/linux/vfio.h`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_user_device_feature` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct Feature {
    pub(crate) argsz: u32,
    /// The feature's number in the low 16 bits, [`FeatureOps`] above.
    pub(crate) flags: u32,
}

/// The part of [`Feature::flags`] that is the feature's number.
pub(crate) const FEATURE_MASK: u32 = 0xffff;

bitflags! {
    /// What is asked of a feature.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FeatureOps: u32 {
        const GET = 1 << 16;
        const SET = 1 << 17;
        const PROBE = 1 << 18;
    }
}

/// Feature numbers.
pub(crate) mod number {
    pub(crate) const MIGRATION: u32 = 1;
    pub(crate) const MIG_DEVICE_STATE: u32 = 2;
    pub(crate) const DMA_LOGGING_START: u32 = 6;
    pub(crate) const DMA_LOGGING_STOP: u32 = 7;
    pub(crate) const DMA_LOGGING_REPORT: u32 = 8;
    pub(crate) const MIG_DATA_SIZE: u32 = 9;
}

/// `struct vfio_device_feature_migration`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct Migration {
    pub(crate) flags: u64,
}

/// `VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY`.
pub(crate) const MIGRATION_FLAGS: u64 = 0b111;

/// `struct vfio_device_feature_mig_state`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct MigrationState {
    pub(crate) device_state: u32,
    /// A file descriptor in the kernel's interface; here none.
    pub(crate) data_fd: u32,
}

/// The value of [`MigrationState::data_fd`].
pub(crate) const NO_DATA_FD: u32 = u32::MAX;

/// `struct vfio_device_feature_mig_data_size`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct MigrationDataSize {
    /// Bytes.
    pub(crate) stop_copy_length: u64,
}

/// `struct vfio_device_feature_dma_logging_control`, its ranges following.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct LoggingControl {
    /// Bytes.
    pub(crate) page_size: u64,
    pub(crate) range_count: u32,
    pub(crate) reserved: u32,
}

/// `struct vfio_device_feature_dma_logging_range`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct LoggingRange {
    pub(crate) iova: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// `struct vfio_device_feature_dma_logging_report`, its bitmap following in the reply.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct LoggingReport {
    pub(crate) iova: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Bytes.
    pub(crate) page_size: u64,
}
