//! [`Engine`]: a way to have a device read and write memory.

pub mod edu;
pub mod nvme;
mod testdev;
pub mod vf;

use std::fmt;
use std::ops::Range;

use anyhow::{Result, bail};

use crate::memory::Scratch;
use crate::race::Goal;
use crate::registers::Registers;

/// Which device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// QEMU's `iommu-testdev`: writes at once. It has no interrupts.
    Testdev,
    /// QEMU's `edu`: takes a tenth of a second for each transfer. It has MSI and INTx.
    Edu,
    /// QEMU's `nvme`: its data arrives some time after it was asked for. It has MSI-X.
    Nvme,
    /// A virtual function of `mlx5-rig`, of our series: writes at once, tracks what it writes, and migrates. It has MSI-X.
    Vf,
}

impl Kind {
    /// By the vendor's and the device's number.
    ///
    /// # Errors
    ///
    /// It is none of these devices.
    pub fn of(id: (u16, u16)) -> Result<Self> {
        let kinds = [Self::Testdev, Self::Edu, Self::Nvme, Self::Vf];
        match kinds.into_iter().find(|kind| kind.id() == id) {
            Some(kind) => Ok(kind),
            None => bail!(
                "{:04x}:{:04x} is none of iommu-testdev, edu, nvme and an mlx5 VF",
                id.0,
                id.1
            ),
        }
    }

    /// The vendor's and the device's number.
    pub fn id(self) -> (u16, u16) {
        match self {
            Self::Testdev => (0x1b36, 0x0005),
            Self::Edu => (0x1234, 0x11e8),
            Self::Nvme => (0x1b36, 0x0010),
            Self::Vf => (0x15b3, 0x101e),
        }
    }

    /// Its driver.
    pub fn engine(self, completions: Completions) -> Box<dyn Engine> {
        match self {
            Self::Testdev => Box::<testdev::Testdev>::default(),
            Self::Edu => Box::<edu::Edu>::default(),
            Self::Nvme => Box::new(nvme::Nvme::new(completions)),
            Self::Vf => Box::new(vf::VfEngine),
        }
    }

    /// What can be asked of it.
    pub fn limits(self) -> Limits {
        match self {
            Self::Testdev => testdev::LIMITS,
            Self::Edu => edu::LIMITS,
            Self::Nvme => nvme::LIMITS,
            Self::Vf => vf::LIMITS,
        }
    }

    /// Whether it says that the IOMMU has stopped a write.
    pub fn tells_of_stops(self) -> bool {
        matches!(self, Self::Testdev | Self::Vf)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Testdev => "iommu-testdev",
            Self::Edu => "edu",
            Self::Nvme => "nvme",
            Self::Vf => "mlx5 VF",
        })
    }
}

/// A driver of a device that reads and writes what it is told to. No byte that the device writes is zero.
pub trait Engine: Send {
    /// Makes the device ready to be driven, after a reset or after it came into an address space that has `scratch` in it.
    ///
    /// # Errors
    ///
    /// It does not get ready.
    fn begin(&mut self, registers: &mut dyn Registers, scratch: &Scratch) -> Result<()>;

    /// Writes `ranges`, and at most the rest of the units that they begin and end in. When it returns, memory has them or the
    /// IOMMU has stopped them.
    ///
    /// # Errors
    ///
    /// The device does something else.
    fn write(&mut self, registers: &mut dyn Registers, ranges: &[Range<u64>]) -> Result<Outcome>;

    /// Reads `range`.
    ///
    /// # Errors
    ///
    /// The device does not, or cannot ([`Limits::reads`]).
    fn read(&mut self, registers: &mut dyn Registers, range: Range<u64>) -> Result<()>;
}

/// What a device says that became of its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Memory has them; or may, if the device does not tell ([`Kind::tells_of_stops`]).
    Written,
    /// The IOMMU stopped at least one.
    Stopped,
}

/// What can be asked of a device.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a write in a race, and no fewer than it writes at a time: a divisor of a page.
    pub unit: u64,
    /// Writes that it does at a time.
    pub depth: usize,
    /// Pages that it writes in a check, given the time it takes.
    pub pages: usize,
    /// What it does in a race, given the time it takes.
    pub race: Goal,
    /// Whether it reads memory as a device does.
    pub reads: Reads,
    /// When what it writes is in memory.
    pub landing: Landing,
}

/// Whether a device reads memory as a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// It does.
    Yes,
    /// It only writes, or reads memory past the IOMMU.
    No,
}

/// When what a device writes is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// At the moment of its translation, as it seems to software.
    AtOnce,
    /// Some time after it. QEMU does not have an invalidation wait for it, as hardware does.
    Later,
}

/// Whether a device that has message interrupts sends one when it has done what it was told to. It is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completions {
    /// It need not.
    Quiet,
    /// By its first vector.
    Interrupt,
}
