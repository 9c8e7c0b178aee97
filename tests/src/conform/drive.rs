//! Devices that can be told to write guest memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::{Checked, fail, skip};
use super::probe::Probe;
use crate::client::{Client, LoggingRange};
use crate::driver::{Descriptor, Dma, Generator, Operation, Ring, regs};
use crate::vmm::{Backing, Device, GuestMemory, PAGE_SIZE, Vm};

/// Guest memory of a check.
pub(super) const MEMORY: u64 = 64 << 20;

/// Where checks write to: nothing else does.
pub(super) const BUFFER: u64 = 48 << 20;

/// Where the first device's ring is; the others follow.
const RINGS: u64 = 8 << 20;

/// Bytes between two rings.
const RING_STRIDE: u64 = 1 << 16;

/// Entries of a ring.
const RING_ENTRIES: u32 = 16;

/// Where the first device's generator writes; the others follow.
const WINDOWS: u64 = 16 << 20;

/// Pages of a generator's window.
const WINDOW_PAGES: u64 = 512;

/// How long a device may take for what it is told to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a page written by [`Driven::write`] is filled with.
const PATTERN: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// A VM of `dma` devices whose rings are set up.
pub(super) struct Driven {
    vm: Vm,
    rings: Vec<Ring>,
}

impl Driven {
    /// The first device of the server.
    pub(super) fn one(probe: &Probe<'_>) -> Checked<Self> {
        Self::of(probe, &probe.sockets()[..1])
    }

    /// The first two devices of the server.
    pub(super) fn two(probe: &Probe<'_>) -> Checked<Self> {
        several(probe)?;
        Self::of(probe, &probe.sockets()[..2])
    }

    /// Every device of the server, of which there are several.
    pub(super) fn all(probe: &Probe<'_>) -> Checked<Self> {
        several(probe)?;
        Self::of(probe, probe.sockets())
    }

    fn of(probe: &Probe<'_>, sockets: &[PathBuf]) -> Checked<Self> {
        let mut devices = Vec::new();
        for (index, socket) in sockets.iter().enumerate() {
            let mut device = Device::new(socket.display().to_string(), probe.ready_of(index)?)?;
            if !Dma::is(&mut device)? {
                return skip("the device is not a `dma`, and nothing here can tell others to write memory");
            }
            devices.push(device);
        }
        let memory = GuestMemory::pc(MEMORY, Backing::Sealed)?;
        let mut driven = Self {
            vm: Vm::of(devices, Arc::clone(&memory))?,
            rings: Vec::new(),
        };
        driven.vm.enable_devices()?;
        for index in 0..sockets.len() {
            let ring = Ring::new(&memory, RINGS + index as u64 * RING_STRIDE, RING_ENTRIES)?;
            driven.dma(index)?.enable_ring(&ring)?;
            driven.rings.push(ring);
        }
        Ok(driven)
    }

    /// The VM.
    pub(super) fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// The connection of a device.
    pub(super) fn client(&mut self, device: usize) -> &mut Client {
        self.vm.devices()[device].client()
    }

    /// The driver of a device.
    pub(super) fn dma(&mut self, device: usize) -> Checked<Dma<'_>> {
        Ok(Dma::attach(&mut self.vm.devices()[device])?)
    }

    /// A device writes `length` bytes at `dest`; when this returns it has.
    pub(super) fn write(&mut self, device: usize, dest: u64, length: u64) -> Checked {
        let operation = Operation::Fill {
            pattern: PATTERN,
            dest,
            length,
        };
        self.carry_out(device, operation)
    }

    /// A device reads `length` bytes at `source`.
    pub(super) fn read(&mut self, device: usize, source: u64, length: u64) -> Checked {
        self.carry_out(device, Operation::Crc { source, length })
    }

    fn carry_out(&mut self, device: usize, operation: Operation) -> Checked {
        let ring = &mut self.rings[device];
        if ring.push(&Descriptor::new(operation, 0))?.is_none() {
            return fail("the ring is full");
        }
        Dma::attach(&mut self.vm.devices()[device])?.ring_doorbell(&self.rings[device])?;
        match self.rings[device].wait(PATIENCE)? {
            Some(completion) if completion.status == regs::ERROR_NONE => Ok(()),
            Some(completion) => fail(format!("the device completes with error {}", completion.status)),
            None => fail(format!("the device does not complete within {PATIENCE:?}")),
        }
    }

    /// Where a device writes its completions.
    pub(super) fn completions(&self, device: usize) -> u64 {
        self.rings[device].completions()
    }

    /// Starts every device's generator, flat out, each in a window of its own.
    pub(super) fn start_generators(&mut self) -> Checked {
        for device in 0..self.rings.len() {
            let generator = Generator {
                base: WINDOWS + device as u64 * WINDOW_PAGES * PAGE_SIZE,
                pages: WINDOW_PAGES,
                seed: device as u64 + 1,
                rate: 0,
                limit: 0,
            };
            self.dma(device)?.start_generator(&generator)?;
        }
        Ok(())
    }

    /// Waits until every generator has written some pages more.
    pub(super) fn await_writes(&mut self, pages: u64) -> Checked {
        for device in 0..self.rings.len() {
            self.dma(device)?.await_progress(pages, PATIENCE)?;
        }
        Ok(())
    }

    /// Stops every device's generator: when this returns they write no more.
    pub(super) fn stop_generators(&mut self) -> Checked {
        for device in 0..self.rings.len() {
            self.dma(device)?.stop_generator()?;
        }
        Ok(())
    }

    /// Starts a device's log, in 4 KiB pages of the ranges (IOVA, bytes).
    pub(super) fn start(&mut self, device: usize, ranges: &[(u64, u64)]) -> Checked {
        let ranges: Vec<LoggingRange> = ranges
            .iter()
            .map(|&(iova, length)| LoggingRange { iova, length })
            .collect();
        Ok(self.client(device).logging_start(PAGE_SIZE, &ranges)?)
    }

    /// The pages that a device reports as written.
    pub(super) fn dirty(
        &mut self,
        device: usize,
        iova: u64,
        length: u64,
        page_size: u64,
    ) -> Checked<Vec<u64>> {
        let report = self.client(device).logging_report(iova, length, page_size)?;
        Ok(report.dirty_pages().collect())
    }
}

/// Several devices, or the end of a check that needs them.
fn several(probe: &Probe<'_>) -> Checked {
    if probe.sockets().len() > 1 {
        return Ok(());
    }
    skip("it takes several devices of one VM: give --socket-path for each")
}
