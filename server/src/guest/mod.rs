//! Guest memory as a device sees it, and as its owner gives and takes it.
//!
//! | side | type | what it does |
//! |---|---|---|
//! | device | [`Dma`] | reads, writes and copies guest memory by IOVA; every write is tracked |
//! | device | [`Lease`] | a writable slice for zero-copy work; tracked when it is dropped |
//! | owner | [`DmaSpace`] | maps, unmaps, suspends; one for each connection |
//!
//! The promise kept here: a page that was written is marked dirty, and marked *after* its data is there.
//! There is one place that writes and marks (`store`), and a device has no other way to write.
//!
//! The second promise: once [`DmaSpace::unmap`] or [`DmaSpace::suspend`] has returned, no access is under way
//! and none begins. An access holds one of the shards of a lock for as long as it takes, so threads do not
//! disturb each other; the owner takes all shards.
//!
//! What it does *not* do: it knows no messages, no page tables, no IOMMU groups; it does not fetch memory
//! that came without a file descriptor; it does not decide what happens to a client whose memory failed.
//! Dirty bits are the tracker's.

mod dma;
mod error;
#[cfg(feature = "fault-injection")]
mod fault;
mod file;
mod lease;
mod mapping;
mod share;
mod sigbus;
mod space;
mod store;
mod table;
pub mod testing;

pub use dma::{COPY_MAX, Dma};
pub use error::{DmaError, MapError, MapRefusal, SuspendError, UnmapError};
#[cfg(feature = "fault-injection")]
pub use fault::DmaFault;
pub use file::AllowedFiles;
pub(crate) use file::check as check_file;
pub use lease::Lease;
pub(crate) use share::Reservation;
pub use share::Share;
pub use space::{BusMaster, DmaSpace, MapRequest};
pub(crate) use table::{MAX_ENTRIES as MAX_MAPPINGS, range_of};

/// Direction of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads guest memory.
    Read,
    /// The device writes guest memory. A mapping for writes allows reads too.
    Write,
}

#[cfg(test)]
mod tests;
