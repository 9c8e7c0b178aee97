//! Registers of a `dma` device.

use anyhow::{Result, bail};

use super::mapped::Mapped;
use crate::generator::Generator;
use crate::memory::Memory;
use crate::protocol::VECTORS;
use crate::regs;
use crate::ring::Ring;

/// What a read gives when there is no device any more.
const GONE: u32 = u32::MAX;

/// The registers of one device, mapped.
#[derive(Clone)]
pub(super) struct Registers(Mapped);

impl Registers {
    /// Takes hold of a device whose BAR 0 is mapped.
    pub(super) fn new(bar: Mapped) -> Result<Self> {
        match bar.load32(regs::ID)? {
            regs::ID_VALUE => Ok(Self(bar)),
            other => bail!("the ID register is {other:#x}"),
        }
    }

    /// Whether the device is there and reports no error.
    pub(super) fn healthy(&self) -> Result<()> {
        let status = self.0.load32(regs::STATUS)?;
        if status == GONE {
            bail!("the device is gone: its registers read as ones");
        }
        if status & (regs::STATUS_RING_ERROR | regs::STATUS_GEN_ERROR | regs::STATUS_FAILED) != 0 {
            let code = self.0.load32(regs::ERROR)?;
            bail!("the device reports error {code} (status {status:#x})");
        }
        Ok(())
    }

    fn change_control(&self, set: u32, clear: u32) -> Result<()> {
        let control = self.0.load32(regs::CONTROL)?;
        self.0.store32(regs::CONTROL, control & !clear | set)?;
        self.healthy()
    }

    /// Brings the device to a standstill with no cause set and all of them enabled.
    pub(super) fn quiesce(&self) -> Result<()> {
        self.change_control(0, regs::CONTROL_RING_ENABLE | regs::CONTROL_GEN_ENABLE)?;
        self.0.store32(regs::INT_CAUSE, regs::CAUSE_ALL)?;
        self.0.store32(regs::INT_ENABLE, regs::CAUSE_ALL)?;
        Ok(())
    }

    /// Fails when something is left of what was there before a reset.
    pub(super) fn check_reset(&self) -> Result<()> {
        for register in [
            regs::CONTROL,
            regs::STATUS,
            regs::INT_CAUSE,
            regs::INT_ENABLE,
            regs::RING_HEAD,
            regs::COMP_TAIL,
            regs::ERROR,
        ] {
            let value = self.0.load32(register)?;
            if value != 0 {
                bail!("register {register:#x} is {value:#x} after a reset");
            }
        }
        Ok(())
    }

    /// Sets the rings up and enables them.
    pub(super) fn enable_ring<M: Memory + Clone>(&self, ring: &Ring<M>) -> Result<()> {
        self.0.store64(regs::DESC_BASE, ring.descriptors())?;
        self.0.store64(regs::COMP_BASE, ring.completions())?;
        self.0.store32(regs::RING_ENTRIES, ring.entries())?;
        self.change_control(regs::CONTROL_RING_ENABLE, 0)
    }

    /// Disables the rings. What was raised before is raised when this returns.
    pub(super) fn disable_ring(&self) -> Result<()> {
        self.change_control(0, regs::CONTROL_RING_ENABLE)
    }

    /// Publishes descriptors and consumed completions.
    pub(super) fn ring_doorbell<M: Memory + Clone>(&self, ring: &Ring<M>) -> Result<()> {
        self.0.store32(regs::COMP_HEAD, ring.consumed())?;
        self.0.store32(regs::RING_TAIL, ring.published())?;
        Ok(())
    }

    /// Programs the generator and starts it.
    pub(super) fn start_generator(&self, generator: &Generator) -> Result<()> {
        self.0.store64(regs::GEN_BASE, generator.base)?;
        self.0.store64(regs::GEN_PAGES, generator.pages)?;
        self.0.store64(regs::GEN_SEED, generator.seed)?;
        self.0.store64(regs::GEN_RATE, generator.rate)?;
        self.0.store64(regs::GEN_LIMIT, generator.limit)?;
        self.change_control(regs::CONTROL_GEN_ENABLE, 0)
    }

    /// Stops the generator: it writes no more, and positions are exact.
    pub(super) fn stop_generator(&self) -> Result<()> {
        self.change_control(0, regs::CONTROL_GEN_ENABLE)
    }

    /// Writes done by the generator, lane by lane.
    pub(super) fn positions(&self) -> Result<Vec<u64>> {
        let lanes = u64::from(self.0.load32(regs::LANES)?.min(64));
        let position = |lane| Ok(self.0.load64(regs::GEN_POSITION + 8 * lane)?);
        (0..lanes).map(position).collect()
    }

    /// Whether the cause of a vector is set.
    pub(super) fn has_cause(&self, vector: usize) -> Result<bool> {
        debug_assert!(vector < VECTORS);
        self.healthy()?;
        Ok(self.0.load32(regs::INT_CAUSE)? & 1 << vector != 0)
    }

    /// Clears the cause of a vector.
    pub(super) fn acknowledge(&self, vector: usize) -> Result<()> {
        debug_assert!(vector < VECTORS);
        Ok(self.0.store32(regs::INT_CAUSE, 1 << vector)?)
    }
}
