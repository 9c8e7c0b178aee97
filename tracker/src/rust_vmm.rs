//! The tracker behind rust-vmm's interface.
//!
//! [`TrackedRegion`] lets `vm-memory` mark what is written through its slices in an address space's software tracker.
//! [`DirtyBitmap`] is a bitmap of its own, with the calls that VMMs make on `vm_memory::bitmap::AtomicBitmap`.

mod bitmap;
mod region;

pub use bitmap::DirtyBitmap;
pub use region::TrackedRegion;
