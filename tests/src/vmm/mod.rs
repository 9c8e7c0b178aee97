//! The embedded VMM: what QEMU does around a vfio-user device, without a guest.
//!
//! [`GuestMemory`] is RAM in memfds with the holes of a PC; [`Device`] is one connection with its BARs, configuration space
//! and interrupts; [`Vm`] puts several devices around one memory. All writes of the "CPU" go through [`GuestMemory`], which
//! remembers them, as KVM's dirty log would.
//!
//! There is no vCPU, no vIOMMU and no PCI bus: BARs get addresses so that a device sees the writes it would see, and nobody
//! decodes them.

mod config;
mod device;
mod irq;
mod memory;
mod memory_file;
mod messages;
mod pages;
mod vm;

pub use config::{Capability, ConfigSpace};
pub use device::{Device, MappedArea};
pub use irq::{Interrupts, IrqKind};
pub use memory::{GuestMemory, MemoryError, PAGE_SIZE, Region, pc_layout};
pub(crate) use memory_file::data_extents;
pub use memory_file::{Backing, memory_file};
pub use messages::MemoryMessages;
pub use pages::PageSet;
pub use vm::{Vm, VmError};
