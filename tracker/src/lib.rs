//! Dirty tracking for devices: which guest pages did a device write?
//!
//! A [`DirtyTracker`] is anything that can answer that question: the dirty bits of an IOMMU's page table, a device
//! that records its own DMA, or the [`SoftwareTracker`] that software-only devices mark by hand. An [`Ioas`] is one
//! guest address space. It owns the software tracker that all its emulated devices share, picks a tracker for each
//! device that is attached ([`Selection`]), and hands out the union of all of them, to one reader group (the
//! migration) and to any number of [`Observer`]s.
//!
//! ```
//! use pagetrail_tracker::{DeviceKind, Ioas, Iova, IovaRange, PageSize, ReportBitmap};
//!
//! let ioas = Ioas::new();
//! let device = ioas.attach(DeviceKind::Emulated, "nic0")?;
//! let log = ioas.software_tracker();
//!
//! let ram = IovaRange::from_len(Iova::new(0), 1 << 30)?;
//! device.start(&[ram], PageSize::SIZE_4K)?;
//! log.mark(IovaRange::from_len(Iova::new(0x5000), 0x10)?); // after each write of guest memory
//!
//! let mut bytes = vec![0; ReportBitmap::required_len(ram, PageSize::SIZE_4K)?];
//! let mut report = ReportBitmap::new(ram, PageSize::SIZE_4K, &mut bytes)?;
//! device.report(&mut report)?; // read and clear
//! assert!(report.is_dirty(Iova::new(0x5fff)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The promise
//!
//! No page that a device wrote is lost: a page written before a report is in that report or in a later one, and a
//! report that was read after the devices stopped completes the set. Where exactness and the promise conflict, a
//! report is a superset.
//!
//! # What this crate does not do
//!
//! It knows no guest memory and no mappings (bits are keyed by [`Iova`] and outlive an unmap), speaks no protocol, and
//! starts no threads.

mod barrier;
mod bitmap;
#[cfg(feature = "conformance")]
pub mod conformance;
mod device;
mod found;
mod granules;
#[cfg(all(test, not(loom)))]
mod header_check;
mod ioas;
mod iommu;
mod iova;
mod range_set;
mod rust_vmm;
mod software;
mod sparse;
mod sync;
mod tracker;
mod untracked;

pub use barrier::{Barrier, BarrierError};
pub use bitmap::{BitmapError, ReportBitmap};
pub use device::{DeviceTracker, DeviceTrackerError, DmaLog, report_dma_logging};
pub use ioas::{
    Attachment, Candidate, DeviceKind, Explanation, Ioas, LogError, MAX_RANGES, Observer, Selection,
    SelectionError, WithoutTracker,
};
pub use iommu::{
    Access, AttachedDevice, DirtyControl, IommuError, IommuTracker, KernelIoas, Leaves, Quiesced, Witness,
};
pub use iova::{IOVA_END, Iova, IovaRange, PageSize, RangeError};
pub use range_set::{OverlapError, RangeSet};
pub use rust_vmm::{DirtyBitmap, TrackedRegion};
#[cfg(feature = "fault-injection")]
pub use software::Fault;
pub use software::{SoftwareTracker, SoftwareTrackerBuilder};
pub use tracker::{
    Capabilities, DirtyTracker, PageSizes, PeekSupport, RangeControl, RangeUpdate, TrackerError, TrackerKind,
};
