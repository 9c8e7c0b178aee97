//! IOMMU tracking: a kernel's address space whose page tables record what devices write, on iommufd.
//!
//! [`KernelIoas`] owns everything that has to be done in the right order: an iommufd IOAS, the page tables (HWPT) made for
//! the devices that are [attached](KernelIoas::attach) to it, the memory that is [mapped](KernelIoas::map), and the
//! [`IommuTracker`], which is the [`DirtyTracker`](crate::DirtyTracker) of all its page tables together. There is no other way to map, unmap or detach,
//! so that none can go by the tracker:
//!
//! - **Unmap.** The dirty bits live in the page table and go with the mapping. As long as a device can write, a write between the
//!   last look at the bits and the unmap would be lost, so the whole mapping becomes due; once every device is
//!   [quiesced](AttachedDevice::quiesce), the bits are read first and kept. A reset by the host has a device run without anybody
//!   here being told: that they have stayed quiet is asked of each device's [`Witness`] when the mapping has gone.
//! - **Detach.** The bits of a page table that loses its last device are read after the detach and kept.
//! - **Attach.** A page table made while the tracker runs begins to track before the device is attached.
//!
//! A page table switches tracking on for all of itself, so reports are filtered to the started ranges. What drivers differ in
//! is [`DirtyControl`].
//!
//! Bits are as coarse as the entries of the page table. [`Leaves::Small`] has the kernel make entries of a page each;
//! with [`Leaves::Large`] a report covers all of a large page that was written.
//!
//! # What the kernel does, and this module relies on
//!
//! Switching tracking on clears the bits (also if it is on: so it never is switched on twice). Reading the bits of a part
//! of a large page clears those of all of it, and of a range with a hole stops at the hole without an error: so reads cover
//! whole mappings where pages may be large, never a hole, and what is read beyond the report is kept.

mod attached;
mod error;
mod host;
mod ioas;
mod kernel;
mod mappings;
#[cfg(all(test, not(loom)))]
mod model;
mod page_tables;
mod state;
mod sys;
#[cfg(all(test, not(loom)))]
mod tests;
mod tracker;

pub use attached::{AttachedDevice, Quiesced, Witness};
pub use error::IommuError;
pub use ioas::KernelIoas;
pub use kernel::{Access, DirtyControl, Leaves};
pub use tracker::IommuTracker;
