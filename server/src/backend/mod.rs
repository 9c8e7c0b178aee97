//! What the messages of a connection act on: a device, with its connection's memory, interrupts and migration.
//!
//! | backend | what it is |
//! |---|---|
//! | [`Emulated`] | a [`Device`](crate::device::Device) of this process |
//! | [`Passthrough`](crate::passthrough::Passthrough) | a device of the kernel's VFIO, handed through to the client |
//!
//! A backend decides what a request does and logs why one is refused. How it is laid out on the wire is the session's, which has
//! taken it apart before, and so is the DMA log, which is the VM's.

mod emulated;

pub(crate) use emulated::{Emulated, Parts};

use rustix::io::Errno;

use crate::device::Bar;
use crate::guest::MapRequest;
use crate::irq::{IrqInfo, SetIrqs};
use crate::migration::{MigState, PrecopyInfo};
use crate::vfu::{Answer, Message};

/// A device as its connection's messages see it. An error is what the client gets, and has been logged.
pub(crate) trait Backend: Send + Sync {
    /// Lets the device reach memory.
    fn map(&self, request: MapRequest) -> Result<(), Errno>;

    /// Takes away what was mapped as exactly these bytes. No DMA of the device into them is under way when this returns.
    fn unmap(&self, iova: u64, size: u64) -> Result<(), Errno>;

    /// Takes away everything that was mapped.
    fn unmap_all(&self) -> Result<(), Errno>;

    /// GET_IRQ_INFO of `index`.
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno>;

    /// SET_IRQS, of which nothing has been checked.
    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno>;

    /// What the device's migration can do, `VFIO_MIGRATION_*`; `ENOTTY` if it does not migrate.
    fn migration_flags(&self) -> Result<u64, Errno>;

    /// The migration state that the device is in.
    fn migration_state(&self) -> Result<MigState, Errno>;

    /// Leads the device to a migration state.
    fn set_migration_state(&self, to: MigState) -> Result<(), Errno>;

    /// Upper bound of the bytes from here to the end of the migration stream.
    fn migration_data_size(&self) -> Result<u64, Errno>;

    /// Reads the next bytes of the migration stream, at most as many as `out` takes.
    fn read_migration_data(&self, out: &mut [u8]) -> Result<usize, Errno>;

    /// Writes the next bytes of the migration stream.
    fn write_migration_data(&self, data: &[u8]) -> Result<(), Errno>;

    /// What can be read of the migration stream before the device has stopped.
    fn precopy_info(&self) -> Result<PrecopyInfo, Errno>;

    /// Resets the device, in any state. Mappings, eventfds and the DMA log stay.
    fn reset(&self) -> Result<(), Errno>;

    /// Whether the device has failed, until it is reset. It may write memory after it was last asked for dirty pages then.
    fn is_failed(&self) -> bool;

    /// Every further message: about the device, its regions and their contents. Most of it is libvfio-user's.
    fn other(&self, message: &Message<'_>) -> Result<Answer, Errno>;

    /// Reads a BAR, if libvfio-user has been told of any. The access lies within it.
    fn read_bar(&self, _bar: Bar, _offset: u64, _data: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::INVAL)
    }

    /// Writes a BAR, if libvfio-user has been told of any. The access lies within it.
    fn write_bar(&self, _bar: Bar, _offset: u64, _data: &[u8]) -> Result<(), Errno> {
        Err(Errno::INVAL)
    }

    /// The client has left: stops the device and takes its memory away, in that order.
    fn end(&self);
}
