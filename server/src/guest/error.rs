//! Why guest memory could not be reached, mapped, unmapped or brought to rest.

use rustix::io::Errno;

/// Why an access to guest memory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The driver has not switched bus mastering on.
    #[error("bus mastering is off")]
    BusMasterOff,
    /// The device is stopped and tried all the same.
    #[error("the device is stopped")]
    Stopped,
    /// No mapping holds the address, or the range wraps around.
    #[error("IOVA {0:#x} is not mapped")]
    NotMapped(u64),
    /// The mapping does not allow this access.
    #[error("IOVA {0:#x} is not mapped for this access")]
    Denied(u64),
    /// The mapping came without a file descriptor (`share=on` is missing).
    #[error("IOVA {0:#x} was mapped without a file descriptor")]
    Unreachable(u64),
    /// The memory behind the address failed (its file was truncated).
    #[error("the memory behind IOVA {0:#x} failed")]
    MemoryFailed(u64),
}

/// Why a mapping was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot map {size:#x} bytes at IOVA {iova:#x}: {reason}")]
pub struct MapError {
    /// First IOVA asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Why not.
    pub reason: MapRefusal,
}

/// What is wrong with a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapRefusal {
    /// Nothing to map.
    #[error("it is empty")]
    Empty,
    /// Not in units of 4 KiB.
    #[error("address, size and file offset must be multiples of 4 KiB")]
    Misaligned,
    /// It ends above 2^52, where writes are not tracked.
    #[error("it ends above 2^52")]
    OutOfRange,
    /// A mapping of this connection is there.
    #[error("a mapping at IOVA {0:#x} is in the way")]
    Overlap(u64),
    /// No more mappings are kept.
    #[error("there are too many mappings")]
    TooMany,
    /// The mappings of this process would take too much of its address space.
    #[error("there is no address space left for it")]
    NoAddressSpace,
    /// Neither guest memory nor a file at all: a pipe, a socket, a directory, a device.
    #[error("the file descriptor is not of a regular file")]
    NotRegular,
    /// A file system whose pages may take long to come, or not come at all.
    #[error("the file is neither on tmpfs nor on hugetlbfs (filesystem type {0:#x})")]
    FileSystem(u64),
    /// The file does not hold the mapping.
    #[error("the file ends at {size:#x}, before the mapping's end at {end:#x}")]
    TooShort {
        /// Bytes in the file.
        size: u64,
        /// Where the mapping ends in the file.
        end: u64,
    },
    /// The kernel said no, for example because the descriptor is read-only.
    #[error("{0}")]
    System(Errno),
}

impl MapError {
    /// What the client gets to see.
    pub fn errno(&self) -> Errno {
        self.reason.errno()
    }
}

impl MapRefusal {
    /// What the client gets to see.
    pub fn errno(&self) -> Errno {
        match *self {
            Self::Empty
            | Self::Misaligned
            | Self::OutOfRange
            | Self::NotRegular
            | Self::FileSystem(_)
            | Self::TooShort { .. } => Errno::INVAL,
            Self::Overlap(_) => Errno::EXIST,
            Self::TooMany | Self::NoAddressSpace => Errno::NOSPC,
            Self::System(errno) => errno,
        }
    }
}

impl From<Errno> for MapRefusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Why memory was not unmapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnmapError {
    /// No mapping is exactly this one.
    #[error("no mapping of {size:#x} bytes at IOVA {iova:#x}")]
    NotMapped {
        /// First IOVA asked for.
        iova: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// A lease was held beyond the deadline. No new access to the memory begins, but what the lease's holder
    /// still writes would come after the answer: the device must be failed. The mapping stays until it is
    /// unmapped again.
    #[error("the device still holds a lease of memory at IOVA {0:#x}")]
    Leased(u64),
}

impl UnmapError {
    /// Whether DMA did not end in time, so that the device must be failed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Leased(_))
    }

    /// What the client gets to see.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotMapped { .. } => Errno::NOENT,
            Self::Leased(_) => Errno::BUSY,
        }
    }
}

/// DMA did not come to rest: a lease was held beyond the deadline. No new access begins, but the device must
/// be failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device still holds a lease of memory at IOVA {iova:#x}")]
pub struct SuspendError {
    /// First IOVA of the lease.
    pub iova: u64,
}
