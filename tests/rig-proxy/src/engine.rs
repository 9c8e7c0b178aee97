//! The registers of QEMU's test devices, by which they are told what to write.
//!
//! Of `iommu-testdev` see `include/hw/misc/iommu-testdev.h` of QEMU, of `edu` its `docs/specs/edu.rst`, and of the virtual functions
//! `docs/specs/mlx5-rig.rst` of our series.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vfio_user_check::vmm::{Device, MappedArea};

/// The BAR that has the registers.
pub(crate) const BAR: u32 = 0;

/// How long a device may take for one write.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes at once, and says whether the IOMMU let it. It has no interrupts.
    Testdev,
    /// Takes a tenth of a second, and does not say whether it was stopped. It has MSI and INTx.
    Edu,
    /// A virtual function of the rigs' adapter: writes at once, says whether the IOMMU let it, tracks what it writes, and migrates. It
    /// has MSI-X.
    Vf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Testdev => "iommu-testdev",
            Self::Edu => "edu",
            Self::Vf => "mlx5 VF",
        })
    }
}

impl Kind {
    /// By its PCI id, as sysfs has it.
    pub(crate) fn of(vendor: &str, device: &str) -> Result<Self> {
        match (vendor, device) {
            ("0x1b36", "0x0005") => Ok(Self::Testdev),
            ("0x1234", "0x11e8") => Ok(Self::Edu),
            ("0x15b3", "0x101e") => Ok(Self::Vf),
            _ => bail!("{vendor}:{device} is none of iommu-testdev, edu and an mlx5 VF"),
        }
    }

    /// Vendor and device, as config space has them.
    pub(crate) fn id(self) -> (u16, u16) {
        match self {
            Self::Testdev => (0x1b36, 0x0005),
            Self::Edu => (0x1234, 0x11e8),
            Self::Vf => (0x15b3, 0x101e),
        }
    }

    /// Whether it says that the IOMMU has stopped a write.
    pub(crate) fn knows_stops(self) -> bool {
        self != Self::Edu
    }

    /// How many pages it writes where each write takes its time.
    pub(crate) fn pages(self) -> usize {
        match self {
            Self::Testdev | Self::Vf => 300,
            Self::Edu => 8,
        }
    }
}

/// The device's registers, by one of two ways.
pub(crate) enum Registers<'a> {
    /// Each access is a message to the server.
    Messages(&'a mut Device),
    /// Each access is one to the device.
    Mapped(&'a MappedArea),
}

impl Registers<'_> {
    pub(crate) fn set(&mut self, offset: u64, value: u32) -> Result<()> {
        match self {
            Self::Messages(device) => Ok(device.write32(BAR, offset, value)?),
            Self::Mapped(area) => area.store(offset, value).context("not in the mapping"),
        }
    }

    pub(crate) fn get(&mut self, offset: u64) -> Result<u32> {
        match self {
            Self::Messages(device) => Ok(device.read32(BAR, offset)?),
            Self::Mapped(area) => area.load(offset).context("not in the mapping"),
        }
    }

    /// A register of 64 bits, by its halves.
    pub(crate) fn set64(&mut self, offset: u64, value: u64) -> Result<()> {
        self.set(offset, value as u32)?;
        self.set(offset + 4, (value >> 32) as u32)
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The memory has it, or may.
    Written,
    /// The IOMMU stopped it.
    Stopped,
}

impl Kind {
    /// Has the device write four bytes at `iova`.
    pub(crate) fn write(self, registers: &mut Registers<'_>, iova: u64) -> Result<Outcome> {
        match self {
            Self::Testdev => testdev::write(registers, iova),
            Self::Edu => edu::write(registers, iova).map(|()| Outcome::Written),
            Self::Vf => vf::write(registers, iova),
        }
    }
}

mod testdev {
    use super::{Outcome, Registers, Result, bail};

    const TRIGGER: u64 = 0x00;
    const IOVA_LOW: u64 = 0x04;
    const IOVA_HIGH: u64 = 0x08;
    const LEN: u64 = 0x0c;
    const RESULT: u64 = 0x10;
    const DOORBELL: u64 = 0x14;
    const ARM: u32 = 1;
    /// The device writes, and then compares with what the machine has at an address that nobody has told it: no matter what it finds.
    const DONE: [u32; 2] = [0, 0xdead_0004];
    const STOPPED: u32 = 0xdead_0002;

    pub(super) fn write(registers: &mut Registers<'_>, iova: u64) -> Result<Outcome> {
        registers.set(IOVA_HIGH, (iova >> 32) as u32)?;
        registers.set(IOVA_LOW, iova as u32)?;
        registers.set(LEN, 4)?;
        registers.set(DOORBELL, ARM)?;
        registers.get(TRIGGER)?;
        match registers.get(RESULT)? {
            STOPPED => Ok(Outcome::Stopped),
            result if DONE.contains(&result) => Ok(Outcome::Written),
            result => bail!("iommu-testdev answers {result:#x} to a write at {iova:#x}"),
        }
    }
}

/// A virtual function of the rigs' adapter.
pub(crate) mod vf {
    use super::{Outcome, Registers, Result, bail};

    pub(crate) const STATUS: u64 = 0x04;
    const ADDRESS: u64 = 0x08;
    const STRIDE: u64 = 0x10;
    pub(crate) const VALUE: u64 = 0x18;
    const LENGTH: u64 = 0x20;
    pub(crate) const COUNT: u64 = 0x24;
    const INTERVAL: u64 = 0x28;
    const GO: u64 = 0x2c;
    pub(crate) const FAULTS: u64 = 0x40;
    /// Bytes that do nothing, and are migrated.
    pub(crate) const MEMORY: u64 = 0x8000;

    pub(crate) const BUSY: u32 = 1;
    pub(crate) const DONE: u32 = 2;
    const STOPPED: u32 = 3;

    /// What may go wrong, as the device's register has it.
    pub(crate) mod fault {
        pub(crate) const DROP_PAGE: u32 = 1 << 0;
        pub(crate) const ERROR_CQE: u32 = 1 << 2;
        pub(crate) const ERROR_STATE: u32 = 1 << 3;
        pub(crate) const SAVE: u32 = 1 << 7;
        pub(crate) const LOAD: u32 = 1 << 8;
        pub(crate) const SUSPEND: u32 = 1 << 9;
    }

    /// Writes of eight bytes: the first of `value` to `address`, each one after it of one more, so far behind.
    pub(crate) struct Job {
        pub(crate) address: u64,
        pub(crate) stride: u64,
        pub(crate) value: u64,
        pub(crate) count: u32,
        /// Before each write, in microseconds; 0 is all at once.
        pub(crate) interval: u32,
    }

    /// Begins a job.
    pub(crate) fn start(registers: &mut Registers<'_>, job: &Job) -> Result<()> {
        registers.set64(ADDRESS, job.address)?;
        registers.set64(STRIDE, job.stride)?;
        registers.set64(VALUE, job.value)?;
        registers.set(LENGTH, 8)?;
        registers.set(COUNT, job.count)?;
        registers.set(INTERVAL, job.interval)?;
        registers.set(GO, 1)
    }

    pub(super) fn write(registers: &mut Registers<'_>, iova: u64) -> Result<Outcome> {
        registers.set64(ADDRESS, iova)?;
        registers.set64(VALUE, iova | 1)?;
        registers.set(LENGTH, 4)?;
        registers.set(COUNT, 1)?;
        registers.set(INTERVAL, 0)?;
        registers.set(GO, 1)?;
        match registers.get(STATUS)? {
            DONE => Ok(Outcome::Written),
            STOPPED => Ok(Outcome::Stopped),
            status => bail!("the virtual function has status {status} after a write at {iova:#x}"),
        }
    }
}

/// What `edu` is told besides.
pub(crate) mod edu {
    use super::{Instant, PATIENCE, Registers, Result, ensure};

    /// Says what a driver should know it by.
    pub(crate) const IDENTIFICATION: u64 = 0x00;
    /// Answers with the inverse of what is written.
    pub(crate) const LIVENESS: u64 = 0x04;
    /// Raises the interrupt, with what is written as its cause.
    pub(crate) const RAISE: u64 = 0x60;
    /// Takes causes back.
    pub(crate) const ACKNOWLEDGE: u64 = 0x64;

    const SOURCE: u64 = 0x80;
    const DESTINATION: u64 = 0x88;
    const COUNT: u64 = 0x90;
    const COMMAND: u64 = 0x98;
    const START: u32 = 1;
    const TO_MEMORY: u32 = 2;
    const BUFFER: u32 = 0x4_0000;

    /// Addresses are below 4 GiB in these checks, and each register takes all of its value by its lower half.
    pub(super) fn write(registers: &mut Registers<'_>, iova: u64) -> Result<()> {
        registers.set(SOURCE, BUFFER)?;
        registers.set(DESTINATION, u32::try_from(iova)?)?;
        registers.set(COUNT, 4)?;
        registers.set(COMMAND, START | TO_MEMORY)?;
        let deadline = Instant::now() + PATIENCE;
        while registers.get(COMMAND)? & START != 0 {
            ensure!(Instant::now() < deadline, "edu does not come to an end");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }
}
