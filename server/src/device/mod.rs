//! What a device is to the server: three traits, one each for I/O, run state and saved state.
//!
//! A device is built for one connection by a [`DeviceModel`], gets its [`Dma`] and
//! [`Irq`] handles there, and is dropped when the client leaves. Every method takes `&self`: the
//! session's thread calls them while the device's own threads run.
//!
//! What a device does not see: vfio-user, file descriptors, mapping and unmapping, dirty tracking, the migration
//! state machine. A page that it writes through its `Dma` handle is tracked; there is no other way to write one.

mod io;
mod run_state;
mod saved_state;
mod spec;
mod workers;

pub use io::{DeviceIo, IoError};
pub use run_state::{QuiesceError, RunState};
pub use saved_state::{Identity, RestoreError, SaveError, SavedState, decode_state, encode_state, require};
pub use spec::{Bar, BarSpec, DeviceSpec, IrqCounts, MmapArea, Msix, PciClass, PciId};
pub use workers::{Job, Next, Wakers, Workers};

use std::sync::Arc;

use crate::guest::Dma;
use crate::irq::Irq;

/// A device that the server can run and migrate.
pub trait Device: DeviceIo + RunState + SavedState {}

impl<T: DeviceIo + RunState + SavedState> Device for T {}

/// A kind of device with its configuration: what a socket serves.
pub trait DeviceModel: Send + Sync {
    /// The device as its client sees it before it has run: PCI identity, BARs, interrupts.
    fn spec(&self) -> DeviceSpec;

    /// A new device, after reset and quiescent, for one connection.
    ///
    /// # Errors
    ///
    /// When the host has no threads, memory or file descriptors left for it.
    fn build(&self, dma: Dma, irq: Irq) -> std::io::Result<BuiltDevice>;
}

/// What [`DeviceModel::build`] gives.
pub struct BuiltDevice {
    /// The device.
    pub device: Arc<dyn Device>,
    /// The memory behind its mappable BAR areas, one file for each BAR that has any.
    pub bar_files: Vec<(Bar, std::os::fd::OwnedFd)>,
}
