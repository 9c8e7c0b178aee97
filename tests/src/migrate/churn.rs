//! Disturbances between the passes: memory comes and goes, devices are reset, logging is restarted.

use std::sync::Arc;

use super::MigrateError;
use super::engine::Migration;
use super::saved_state::resume_device;
use super::transfer::Transfer;
use super::workload::Workload;
use crate::driver::{Descriptor, Dma, DriverError, Operation, Ring, regs};
use crate::vmm::{Backing, GuestMemory, PageSet, Region, Vm, VmError, memory_file};
use crate::wire::MigState;

/// Where the memory that comes and goes is.
const PLUG_IOVA: u64 = 1 << 40;

/// How much of it there is; a ring for the device that writes to it lies in its last part.
const PLUG_SIZE: u64 = 4 << 20;

/// Bytes of it that a device fills before it goes.
const FILL_SIZE: u64 = 2 << 20;

/// Entries of the ring.
const ENTRIES: u32 = 16;

/// The next disturbance.
#[derive(Clone, Copy, Debug)]
enum Next {
    Unplug,
    Plug,
    Reset(usize),
    RestartLogging,
}

/// Disturbs a migration, one thing after each pass.
pub struct Churn {
    next: Next,
    fills: u64,
    done: Vec<&'static str>,
}

impl Churn {
    /// Plugs the memory in that is to come and go, on both sides, so that logging starts with it.
    ///
    /// # Errors
    ///
    /// A device that refuses the memory.
    pub fn prepare(source: &mut Vm, dest: &mut Vm) -> Result<Self, MigrateError> {
        source.plug_memory(plug_region()?)?;
        dest.plug_memory(plug_region()?)?;
        Ok(Self {
            next: Next::Unplug,
            fills: 0,
            done: Vec::new(),
        })
    }

    /// What was done so far.
    pub fn done(&self) -> &[&'static str] {
        &self.done
    }

    pub(super) fn disturb(
        &mut self,
        migration: &mut Migration<'_>,
        workload: &mut Workload,
    ) -> Result<(), MigrateError> {
        match self.next {
            Next::Unplug => {
                self.unplug(migration)?;
                self.done.push("memory unplugged");
                self.next = Next::Plug;
            }
            Next::Plug => {
                migration.plug(plug_region()?, plug_region()?)?;
                self.done.push("memory plugged");
                self.next = Next::Reset(0);
            }
            Next::Reset(index) => {
                migration.reset(index, workload)?;
                self.done.push("device reset");
                self.next = Next::RestartLogging;
            }
            Next::RestartLogging => {
                migration.restart_logging()?;
                self.done.push("logging restarted");
                self.next = Next::Unplug;
            }
        }
        Ok(())
    }

    /// Lets a device write to the memory, takes it away, and only then asks what was written.
    fn unplug(&mut self, migration: &mut Migration<'_>) -> Result<(), MigrateError> {
        self.fills += 1;
        let pattern = 0x0101_0101_0101_0101 * (self.fills % 255 + 1);
        fill(migration.source, pattern)?;
        migration.unplug(PLUG_IOVA)
    }
}

fn plug_region() -> Result<Region, MigrateError> {
    let file = memory_file(PLUG_SIZE, Backing::Sealed)?;
    Ok(Region::new(PLUG_IOVA, PLUG_SIZE, Arc::new(file), 0)?)
}

/// Lets the first `dma` device, if there is one, fill a part of the memory.
fn fill(vm: &mut Vm, pattern: u64) -> Result<(), MigrateError> {
    let memory = vm.memory().clone();
    for index in 0..vm.device_count() {
        if vm.with(index, "identifying the device", Dma::is)? {
            let device = &mut vm.devices()[index];
            let device_name = device.name().to_owned();
            return fill_with(
                &mut Dma::attach(device).map_err(named(&device_name))?,
                &memory,
                pattern,
            )
            .map_err(named(&device_name));
        }
    }
    Ok(())
}

fn named(device: &str) -> impl Fn(DriverError) -> MigrateError + use<'_> {
    move |source| {
        MigrateError::Workload(super::WorkloadError::Driver {
            device: device.to_owned(),
            source,
        })
    }
}

fn fill_with(dma: &mut Dma<'_>, memory: &Arc<GuestMemory>, pattern: u64) -> Result<(), DriverError> {
    let mut ring = Ring::new(memory, PLUG_IOVA + FILL_SIZE, ENTRIES)?;
    dma.enable_ring(&ring)?;
    let operation = Operation::Fill {
        pattern,
        dest: PLUG_IOVA,
        length: FILL_SIZE,
    };
    ring.push(&Descriptor::new(operation, pattern))?;
    dma.ring_doorbell(&ring)?;
    let completion = ring
        .wait(std::time::Duration::from_secs(5))?
        .ok_or(DriverError::Late("a fill's completion"))?;
    dma.disable_ring()?;
    match completion.status {
        regs::ERROR_NONE => Ok(()),
        code => Err(DriverError::Device { code, status: 0 }),
    }
}

impl Migration<'_> {
    /// Takes the region at `iova` away from all devices, and then asks what was written to it: that must be reported although
    /// the memory is gone.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn unplug(&mut self, iova: u64) -> Result<(), MigrateError> {
        let region = self.source.memory().find(iova, 1)?;
        let other = self.dest.memory().find(iova, 1)?;
        self.source.each("unplugging memory", |device| {
            device.client().dma_unmap(region.iova(), region.size())
        })?;
        let pages = self.plan.collect(self.source)?;
        self.oracle.reported(&pages);
        Transfer::copy(self.source.memory(), self.dest.memory(), &pages, &mut self.oracle)?;
        let pass = self.passes().len() as u32;
        self.oracle.region_removed(&region, &other, pass)?;
        self.source.memory().remove(iova);
        self.dest.unplug_memory(&other)?;
        Ok(())
    }

    /// Plugs memory in on both sides and copies it.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn plug(&mut self, source: Region, dest: Region) -> Result<(), MigrateError> {
        let region = self.source.plug_memory(source)?;
        self.dest.plug_memory(dest)?;
        self.oracle.region_added(&region);
        let mut pages = PageSet::of(self.source.memory());
        pages.insert_range(region.iova(), region.size());
        Transfer::copy(self.source.memory(), self.dest.memory(), &pages, &mut self.oracle)?;
        Ok(())
    }

    /// Resets a source device in the middle of the migration, as a guest may: its saved state begins anew, on both sides. Logging
    /// must go on.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn reset(&mut self, index: usize, workload: &mut Workload) -> Result<(), MigrateError> {
        self.source.with(index, "resetting the device", |device| {
            device.client().device_reset()?;
            device.enable()
        })?;
        workload.restart(self.source, index)?;
        if self.support.pre_copy() {
            self.source.with(index, "starting pre-copy", |device| {
                device.client().set_mig_state(MigState::PreCopy)
            })?;
        }
        self.dest.with(index, "resetting the destination", |device| {
            device.client().device_reset()
        })?;
        resume_device(self.dest, index)?;
        Ok(())
    }

    /// Stops logging and starts it again: what was written in between is unknown, so the next pass sends everything.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn restart_logging(&mut self) -> Result<(), VmError> {
        self.plan.stop(self.source)?;
        self.plan.start(self.source)?;
        self.resend = true;
        Ok(())
    }
}
