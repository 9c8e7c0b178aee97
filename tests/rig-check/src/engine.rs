//! [`Engine`]: the registers of QEMU's test devices, by which they are told what to write.
//!
//! Of `iommu-testdev` see `include/hw/misc/iommu-testdev.h` of QEMU, of `edu` its `docs/specs/edu.rst`.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use pagetrail_tracker::IovaRange;
use vfio_ioctls::VfioDevice;

use crate::device::pci_id;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The memory has it.
    Written,
    /// The IOMMU stopped it.
    Refused,
}

/// Which device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes at once, any number of bytes, always the same ones.
    IommuTestdev,
    /// Takes a tenth of a second, and does not say whether it was stopped.
    Edu,
}

/// A device's way to write memory, one write at a time.
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    vfio: Arc<VfioDevice>,
    busy: Mutex<()>,
}

mod testdev {
    pub(super) const TRIGGER: u64 = 0x00;
    pub(super) const IOVA_LOW: u64 = 0x04;
    pub(super) const IOVA_HIGH: u64 = 0x08;
    pub(super) const LEN: u64 = 0x0c;
    pub(super) const RESULT: u64 = 0x10;
    pub(super) const DOORBELL: u64 = 0x14;
    pub(super) const ARM: u32 = 1;
    /// The device writes, and then compares what the machine has at an address that nobody has told it.
    pub(super) const WRITTEN: [u32; 2] = [0, 0xdead_0004];
    pub(super) const REFUSED: u32 = 0xdead_0002;
}

mod edu {
    pub(super) const SOURCE: u64 = 0x80;
    pub(super) const DESTINATION: u64 = 0x88;
    pub(super) const COUNT: u64 = 0x90;
    pub(super) const COMMAND: u64 = 0x98;
    /// Its own memory, of so many bytes.
    pub(super) const BUFFER: u64 = 0x4_0000;
    pub(super) const BUFFER_LEN: u64 = 4096;
    pub(super) const START: u64 = 1;
    pub(super) const TO_MEMORY: u64 = 2;
}

impl Engine {
    /// The engine of the device, by its PCI id.
    pub(crate) fn of(vfio: &Arc<VfioDevice>) -> Result<Self> {
        let kind = match pci_id(vfio) {
            (0x1b36, 0x0005) => Kind::IommuTestdev,
            (0x1234, 0x11e8) => Kind::Edu,
            (vendor, device) => bail!("{vendor:04x}:{device:04x} is neither iommu-testdev nor edu"),
        };
        Ok(Self {
            kind,
            vfio: vfio.clone(),
            busy: Mutex::new(()),
        })
    }

    /// Writes the bytes of `range`.
    pub(crate) fn write(&self, range: IovaRange) -> Result<Outcome> {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match self.kind {
            Kind::IommuTestdev => self.write_at_once(range),
            Kind::Edu => {
                self.write_in_parts(range);
                Ok(Outcome::Written)
            }
        }
    }

    fn write_at_once(&self, range: IovaRange) -> Result<Outcome> {
        let iova = range.start().get();
        self.set32(testdev::IOVA_LOW, iova as u32);
        self.set32(testdev::IOVA_HIGH, (iova >> 32) as u32);
        self.set32(testdev::LEN, u32::try_from(range.len())?);
        self.set32(testdev::DOORBELL, testdev::ARM);
        self.get32(testdev::TRIGGER);
        match self.get32(testdev::RESULT) {
            result if testdev::WRITTEN.contains(&result) => Ok(Outcome::Written),
            testdev::REFUSED => Ok(Outcome::Refused),
            result => bail!("iommu-testdev answers {result:#x} to a write of {range}"),
        }
    }

    fn write_in_parts(&self, range: IovaRange) {
        let last = range.last().get();
        for start in (range.start().get()..=last).step_by(edu::BUFFER_LEN as usize) {
            self.set64(edu::SOURCE, edu::BUFFER);
            self.set64(edu::DESTINATION, start);
            self.set64(edu::COUNT, (last - start + 1).min(edu::BUFFER_LEN));
            self.set64(edu::COMMAND, edu::START | edu::TO_MEMORY);
            while self.get64(edu::COMMAND) & edu::START != 0 {
                std::thread::yield_now();
            }
        }
    }

    fn set32(&self, register: u64, value: u32) {
        self.vfio.region_write(0, &value.to_le_bytes(), register);
    }

    fn get32(&self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.vfio.region_read(0, &mut value, register);
        u32::from_le_bytes(value)
    }

    fn set64(&self, register: u64, value: u64) {
        self.vfio.region_write(0, &value.to_le_bytes(), register);
    }

    fn get64(&self, register: u64) -> u64 {
        let mut value = [0; 8];
        self.vfio.region_read(0, &mut value, register);
        u64::from_le_bytes(value)
    }
}
