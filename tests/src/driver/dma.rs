//! Registers of a `dma` device behind a connection.

use std::time::{Duration, Instant};

use super::{Generator, Ring, regs};
use crate::client;
use crate::vmm::{Device, MappedArea, MemoryError};

/// Why the driver gave up.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The device's server refused or failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Another kind of device.
    #[error("not a dma device: ID register {0:#x}")]
    NotDma(u32),
    /// The device says that something went wrong.
    #[error("the device reports error {code} (status {status:#x})")]
    Device {
        /// `ERROR`.
        code: u32,
        /// `STATUS`.
        status: u32,
    },
    /// Something did not happen in time.
    #[error("{0} did not happen in time")]
    Late(&'static str),
}

/// Result of a driver's action.
type Result<T, E = DriverError> = std::result::Result<T, E>;

/// A `dma` device: its registers.
pub struct Dma<'a>(&'a mut Device);

impl<'a> Dma<'a> {
    /// Whether the device is a `dma`, by its PCI id.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn is(device: &mut Device) -> client::Result<bool> {
        Ok(device.config().id()? == (regs::VENDOR, regs::DEVICE))
    }

    /// Takes hold of a `dma` device.
    ///
    /// # Errors
    ///
    /// [`DriverError::NotDma`].
    pub fn attach(device: &'a mut Device) -> Result<Self> {
        match device.read32(regs::BAR, regs::ID)? {
            regs::ID_VALUE => Ok(Self(device)),
            other => Err(DriverError::NotDma(other)),
        }
    }

    /// The device below.
    pub fn device(&mut self) -> &mut Device {
        self.0
    }

    /// Reads a 32-bit register.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn read(&mut self, register: u64) -> Result<u32> {
        Ok(self.0.read32(regs::BAR, register)?)
    }

    /// Writes a 32-bit register.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn write(&mut self, register: u64, value: u32) -> Result<()> {
        Ok(self.0.write32(regs::BAR, register, value)?)
    }

    /// Reads a 64-bit register.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn read64(&mut self, register: u64) -> Result<u64> {
        Ok(self.0.read64(regs::BAR, register)?)
    }

    /// Writes a 64-bit register.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn write64(&mut self, register: u64, value: u64) -> Result<()> {
        Ok(self.0.write64(regs::BAR, register, value)?)
    }

    fn change_control(&mut self, set: u32, clear: u32) -> Result<()> {
        let control = self.read(regs::CONTROL)?;
        self.write(regs::CONTROL, control & !clear | set)
    }

    /// Sets the rings up and enables them.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`] when the device does not like them.
    pub fn enable_ring(&mut self, ring: &Ring) -> Result<()> {
        self.write64(regs::DESC_BASE, ring.descriptors())?;
        self.write64(regs::COMP_BASE, ring.completions())?;
        self.write(regs::RING_ENTRIES, ring.entries())?;
        self.change_control(regs::CONTROL_RING_ENABLE, 0)?;
        self.healthy()
    }

    /// Disables the rings; what was fetched and is not completed is dropped.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn disable_ring(&mut self) -> Result<()> {
        self.change_control(0, regs::CONTROL_RING_ENABLE)
    }

    /// Publishes the descriptors pushed so far, by message.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn ring_doorbell(&mut self, ring: &Ring) -> Result<()> {
        self.write(regs::COMP_HEAD, ring.consumed())?;
        self.write(regs::RING_TAIL, ring.published())
    }

    /// The doorbells, mapped.
    ///
    /// # Errors
    ///
    /// See [`Device::map_region`]; [`DriverError::Late`] when the device offers no such area.
    pub fn map_doorbells(&mut self) -> Result<MappedArea> {
        let areas = self.0.map_region(regs::BAR)?;
        let doorbells = areas
            .into_iter()
            .find(|area| area.load(regs::RING_TAIL).is_some());
        doorbells.ok_or(DriverError::Late("an area with the doorbells"))
    }

    /// Programs the generator and starts it.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`] when the device does not like it.
    pub fn start_generator(&mut self, generator: &Generator) -> Result<()> {
        self.write64(regs::GEN_BASE, generator.base)?;
        self.write64(regs::GEN_PAGES, generator.pages)?;
        self.write64(regs::GEN_SEED, generator.seed)?;
        self.write64(regs::GEN_RATE, generator.rate)?;
        self.write64(regs::GEN_LIMIT, generator.limit)?;
        self.change_control(regs::CONTROL_GEN_ENABLE, 0)?;
        self.healthy()
    }

    /// Stops the generator: when this returns it writes no more, and positions are exact.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn stop_generator(&mut self) -> Result<()> {
        self.change_control(0, regs::CONTROL_GEN_ENABLE)
    }

    /// The generator as the registers have it, for a driver that takes a device over.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn generator(&mut self) -> Result<Generator> {
        Ok(Generator {
            base: self.read64(regs::GEN_BASE)?,
            pages: self.read64(regs::GEN_PAGES)?,
            seed: self.read64(regs::GEN_SEED)?,
            rate: self.read64(regs::GEN_RATE)?,
            limit: self.read64(regs::GEN_LIMIT)?,
        })
    }

    /// Page writes done so far, lane by lane.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn positions(&mut self) -> Result<Vec<u64>> {
        let lanes = u64::from(self.read(regs::LANES)?.min(64));
        (0..lanes)
            .map(|lane| self.read64(regs::GEN_POSITION + 8 * lane))
            .collect()
    }

    /// Whether the device reports no error.
    ///
    /// # Errors
    ///
    /// [`DriverError::Device`].
    pub fn healthy(&mut self) -> Result<()> {
        let status = self.read(regs::STATUS)?;
        if status & (regs::STATUS_RING_ERROR | regs::STATUS_GEN_ERROR | regs::STATUS_FAILED) == 0 {
            return Ok(());
        }
        let code = self.read(regs::ERROR)?;
        Err(DriverError::Device { code, status })
    }

    /// Waits until the generator has written at least `writes` pages more than now.
    ///
    /// # Errors
    ///
    /// [`DriverError::Late`], or the device reports an error.
    pub fn await_progress(&mut self, writes: u64, timeout: Duration) -> Result<()> {
        let start: u64 = self.positions()?.iter().sum();
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if self.positions()?.iter().sum::<u64>() >= start + writes {
                return Ok(());
            }
            self.healthy()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(DriverError::Late("progress of the generator"))
    }

    /// Enables interrupt causes (`regs::CAUSE_*`).
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn enable_causes(&mut self, causes: u32) -> Result<()> {
        self.write(regs::INT_ENABLE, causes)
    }

    /// Reads the causes that are set and acknowledges them.
    ///
    /// # Errors
    ///
    /// See [`client::Client::call`].
    pub fn take_causes(&mut self) -> Result<u32> {
        let causes = self.read(regs::INT_CAUSE)?;
        self.write(regs::INT_CAUSE, causes)?;
        Ok(causes)
    }
}
