//! The data of `DEVICE_FEATURE`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Feature 1: which migration states there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Migration {
    /// `consts::MIGRATION_*`.
    pub flags: u64,
}

/// Feature 2: the migration state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MigDeviceState {
    /// Number of a [`MigState`].
    pub device_state: u32,
    /// Not used by vfio-user.
    pub data_fd: u32,
}

/// States of the kernel's `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum MigState {
    /// Failed; a reset is needed.
    Error = 0,
    /// Neither internal nor external state changes.
    Stop = 1,
    /// Runs.
    Running = 2,
    /// Stopped, its state can be read out.
    StopCopy = 3,
    /// Stopped, it loads a state.
    Resuming = 4,
    /// Runs, but starts no access to other devices.
    RunningP2p = 5,
    /// Runs, and its state can be read out.
    PreCopy = 6,
    /// Both of the two before.
    PreCopyP2p = 7,
}

impl MigState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// The state with this number, if there is one.
    pub fn from_wire(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == number)
    }
}

impl fmt::Display for MigState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        })
    }
}

/// Feature 6: start DMA logging; [`DmaLoggingRange`]s follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaLoggingControl {
    /// The page size hoped for, in bytes.
    pub page_size: u64,
    /// Ranges; none stand for the whole address space.
    pub num_ranges: u32,
    /// Zero.
    pub reserved: u32,
}

/// A range of feature 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaLoggingRange {
    /// First IOVA.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}

/// Feature 8: read and clear the log; the bitmap follows in the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaLoggingReport {
    /// First IOVA.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// Bytes that one bit stands for.
    pub page_size: u64,
}

/// Feature 9: how much migration data there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MigDataSize {
    /// Upper bound of the bytes from here to the end of the stream.
    pub stop_copy_length: u64,
}
