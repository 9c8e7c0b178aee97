//! [`Engine`]: a way to have a device read and write memory.

mod edu;
mod nvme;
mod testdev;

use std::sync::Arc;

use anyhow::{Result, bail};
use pagetrail_tracker::IovaRange;
use vfio_ioctls::VfioDevice;

use crate::registers::Registers;
use crate::scratch::Scratch;

/// A device that reads and writes what it is told to. No byte that it writes is zero.
pub(crate) trait Engine: Send + Sync {
    fn name(&self) -> &'static str;

    fn limits(&self) -> Limits;

    /// Makes the device ready to be driven, after it came into an address space that has `scratch` in it.
    fn begin(&self, scratch: &Scratch) -> Result<()>;

    /// Writes `ranges`, and at most the rest of the units that they begin and end in. When it returns, memory has them or the
    /// IOMMU has stopped them.
    fn write(&self, ranges: &[IovaRange]) -> Result<()>;

    /// Reads `range`.
    fn read(&self, range: IovaRange) -> Result<()>;
}

/// What can be asked of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of a write in a race, and no fewer than it writes at a time: a divisor of a page.
    pub(crate) unit: u64,
    /// Writes that it does at a time.
    pub(crate) depth: usize,
    /// Pages that it writes in a check, given the time it takes.
    pub(crate) pages: usize,
    /// Writes that it does in a race, given the time it takes.
    pub(crate) race: u64,
    pub(crate) reads: Reads,
    pub(crate) landing: Landing,
}

/// Whether a device reads memory as a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Yes,
    No,
}

/// When what a device writes is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// At the moment of its translation, as it seems to software.
    AtOnce,
    /// Some time after it. QEMU does not have an invalidation wait for it, as hardware does.
    Later,
}

/// The engine of the device, by its PCI id.
pub(crate) fn of(vfio: &Arc<VfioDevice>) -> Result<Box<dyn Engine>> {
    let registers = Registers::of(vfio);
    Ok(match registers.pci_id() {
        (0x1b36, 0x0005) => Box::new(testdev::Testdev::new(registers)),
        (0x1234, 0x11e8) => Box::new(edu::Edu::new(registers)),
        (0x1b36, 0x0010) => Box::new(nvme::Nvme::new(registers)),
        (vendor, device) => {
            bail!("{vendor:04x}:{device:04x} is neither iommu-testdev nor edu nor nvme of QEMU's")
        }
    })
}
