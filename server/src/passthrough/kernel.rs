//! [`Device`]: the calls of the kernel's VFIO that this module is built on, and their vocabulary.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::irq::{IrqAction, IrqInfo};
use crate::migration::PrecopyInfo;
use crate::wire::region::{DeviceFlags, RegionFlags};

/// What a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceInfo {
    pub(super) flags: DeviceFlags,
    /// Regions, from index 0 on.
    pub(super) regions: u32,
    /// Kinds of interrupts, from index 0 on.
    pub(super) irqs: u32,
}

/// A region: a BAR, the ROM, config space.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Region {
    pub(super) flags: RegionFlags,
    /// Bytes.
    pub(super) size: u64,
    /// Where it begins in the device's file, in bytes.
    pub(super) offset: u64,
    /// The parts that can be mapped, if the kernel names them; all of it otherwise.
    pub(super) areas: Option<Vec<Area>>,
}

/// A part of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    /// In the region, in bytes.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// `VFIO_DEVICE_SET_IRQS` of the interrupts `start` to `start + count - 1` of a kind.
#[derive(Debug)]
pub(super) struct SetIrqs<'a> {
    pub(super) index: u32,
    pub(super) start: u32,
    pub(super) count: u32,
    pub(super) action: IrqAction,
    pub(super) data: IrqData<'a>,
}

/// What goes with it.
#[derive(Debug)]
pub(super) enum IrqData<'a> {
    /// Nothing.
    None,
    /// A byte for each interrupt.
    Bool(&'a [u8]),
    /// For each interrupt an eventfd, or that it has none any more.
    Eventfds(&'a [Option<BorrowedFd<'a>>]),
}

/// A device that is bound to an iommufd.
pub(super) trait Device: Send + Sync + fmt::Debug {
    /// `VFIO_DEVICE_GET_INFO`.
    fn info(&self) -> io::Result<DeviceInfo>;

    /// `VFIO_DEVICE_GET_REGION_INFO`.
    fn region(&self, index: u32) -> io::Result<Region>;

    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    fn irq(&self, index: u32) -> io::Result<IrqInfo>;

    /// `VFIO_DEVICE_SET_IRQS`. `ENOSPC` if the host has not as many interrupts for the device.
    fn set_irqs(&self, request: &SetIrqs<'_>) -> io::Result<()>;

    /// `VFIO_DEVICE_RESET`.
    fn reset(&self) -> io::Result<()>;

    /// Reads at an offset of the device's file. Returns how many bytes there were.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset of the device's file. Returns how many bytes were taken.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize>;

    /// The device's file, to be mapped.
    fn file(&self) -> BorrowedFd<'_>;

    /// Gets `VFIO_DEVICE_FEATURE_MIGRATION`.
    fn migration_flags(&self) -> io::Result<u64>;

    /// Gets `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
    fn migration_state(&self) -> io::Result<u32>;

    /// Sets `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`. Returns the file with the data that the state has, if it is new.
    fn set_migration_state(&self, state: u32) -> io::Result<Option<Box<dyn MigrationFile>>>;

    /// Gets `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`, in bytes.
    fn migration_data_size(&self) -> io::Result<u64>;
}

/// The file that a migrating device's data is read from or written to.
pub(super) trait MigrationFile: Send + fmt::Debug {
    /// Reads what comes next. 0 is the end of the data; `ENOMSG` before the device has stopped: there is none at present. `EAGAIN`: it
    /// takes longer than can be waited for.
    fn read(&self, out: &mut [u8]) -> io::Result<usize>;

    /// Writes what comes next. Returns how many bytes were taken.
    fn write(&self, data: &[u8]) -> io::Result<usize>;

    /// `VFIO_MIG_GET_PRECOPY_INFO`.
    fn precopy_info(&self) -> io::Result<PrecopyInfo>;
}
