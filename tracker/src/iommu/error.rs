//! [`IommuError`].

use std::io;

use thiserror::Error;

use crate::{IOVA_END, IovaRange};

/// Why the kernel's address space did not do what it was asked.
#[derive(Debug, Error)]
pub enum IommuError {
    /// It could not be made.
    #[error("cannot make an I/O address space")]
    Create(#[source] io::Error),
    /// The kernel does not say what the device's IOMMU can do.
    #[error("cannot ask what the IOMMU of the device can do")]
    HardwareInfo(#[source] io::Error),
    /// A device cannot have a page table of the address space.
    #[error("the device cannot be attached to the address space")]
    Attach(#[source] io::Error),
    /// Its page table does not begin to track, while the address space is being tracked.
    #[error("the page table of the device does not begin to track")]
    Track(#[source] io::Error),
    /// The range reaches beyond what can be tracked.
    #[error("{0} does not lie below {IOVA_END:#x}, where the addresses that can be tracked end")]
    OutOfReach(IovaRange),
    /// The range has mappings already.
    #[error("{0} is mapped already")]
    Mapped(IovaRange),
    /// The range is not that of one mapping.
    #[error("{0} is not the range of a mapping")]
    NotMapped(IovaRange),
    /// The range or its place in the file does not begin and end with pages.
    #[error("{range} at {offset:#x} of its file does not consist of whole pages")]
    Unaligned {
        /// Where.
        range: IovaRange,
        /// In the file.
        offset: u64,
    },
    /// The kernel has not, or may not have, so much memory that stays where it is.
    #[error("cannot lock the memory of {0}: raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)")]
    CannotLock(IovaRange),
    /// The kernel does not map the memory.
    #[error("cannot map {range} for devices")]
    Map {
        /// Where.
        range: IovaRange,
        /// What the kernel said: that devices cannot reach the range, that the file cannot be mapped, …
        source: io::Error,
    },
    /// The kernel does not unmap the memory: devices may still use it.
    #[error("cannot unmap {range} from devices")]
    Unmap {
        /// Where.
        range: IovaRange,
        /// What the kernel said.
        source: io::Error,
    },
}
