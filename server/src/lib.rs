//! Out-of-process PCI devices for QEMU's `-device vfio-user-pci`.
//!
//! | module | what it is |
//! |---|---|
//! | [`device`] | the traits that a device implements: I/O, run state, saved state |
//! | [`guest`] | guest memory as a device sees it: mappings, the [`guest::Dma`] handle, leases |
//! | [`irq`] | interrupts as a device sees them: causes that persist until acknowledged |
//! | [`migration`] | the VFIO v2 state machine and the saved-state stream |
//! | [`devices`] | the devices themselves |
//! | `session` | one client's connection: every message, in order |
//! | [`passthrough`] | devices of the kernel's VFIO, passed through |
//! | `backend` | what the messages of a connection act on: an emulated device, or one passed through |
//! | [`host`] | listening, threads, the VMs and their address spaces |
//! | [`program`] | what a program around devices does: options, log, signals, the service manager |
//! | [`ratelimit`] | keeps what a guest can trigger from filling the log |
//! | `vfu` | the safe wrapper of libvfio-user; nothing else touches it |
//! | `wire` | layouts of the messages that Rust answers itself |
//!
//! Dependencies run downwards only: a device knows `device`, `guest` and `irq`, and never the transport.

pub mod device;
pub mod devices;
#[cfg(feature = "fault-injection")]
pub mod fault;
pub mod guest;
pub mod host;
pub mod irq;
pub mod migration;
pub mod passthrough;
pub mod program;
pub mod ratelimit;

mod backend;
mod session;
mod vfu;
mod wire;
