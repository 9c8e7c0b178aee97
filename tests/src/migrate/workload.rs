//! What the devices are kept busy with during a migration: the generators of `dma` devices.

use std::time::Duration;

use super::stats::ReplayCheck;
use crate::driver::{Dma, DriverError, Generator, check_window, regs};
use crate::vmm::{GuestMemory, MemoryError, PAGE_SIZE, Vm, VmError};

/// How long a generator may take to go on at the destination.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the workload could not be set up or checked.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A device's driver.
    #[error("{device}: the driver gives up")]
    Driver {
        /// The device.
        device: String,
        /// What happened.
        source: DriverError,
    },
    /// A device.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// There is no room for the windows.
    #[error("guest memory has no {bytes} bytes in one piece left; use more memory or a smaller window")]
    NoRoom {
        /// What was wanted.
        bytes: u64,
    },
}

impl From<MemoryError> for WorkloadError {
    fn from(error: MemoryError) -> Self {
        Self::Vm(error.into())
    }
}

/// How much the generators write.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Per cent of guest memory that all windows make up.
    pub window_percent: u64,
    /// Page writes per second of each device; 0 is flat out.
    pub rate: u64,
    /// Seed of the first device; the others count up.
    pub seed: u64,
}

/// Hands out pieces of guest memory.
pub struct Arena {
    free: Vec<(u64, u64)>,
}

impl Arena {
    /// All of `memory` is free but its first region, the one below 640 KiB.
    pub fn new(memory: &GuestMemory) -> Self {
        let regions = memory.regions();
        let skip = usize::from(regions.len() > 1);
        Self {
            free: regions
                .iter()
                .skip(skip)
                .map(|region| (region.iova(), region.end()))
                .collect(),
        }
    }

    /// Takes `bytes` in one piece, whole pages.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::NoRoom`].
    pub fn take(&mut self, bytes: u64) -> Result<u64, WorkloadError> {
        let bytes = bytes.next_multiple_of(PAGE_SIZE);
        let piece = self.free.iter_mut().find(|(start, end)| end - start >= bytes);
        let (start, _) = piece.ok_or(WorkloadError::NoRoom { bytes })?;
        let iova = *start;
        *start += bytes;
        Ok(iova)
    }
}

/// The generators that run, device by device; `None` for a device of another kind.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    generators: Vec<Option<Generator>>,
    positions: Vec<Vec<u64>>,
    after_check: AfterCheck,
}

/// What becomes of the generators once the destination is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterCheck {
    /// They stay stopped.
    #[default]
    Stop,
    /// They start anew, with other seeds: the VM is to migrate again.
    Restart,
}

impl Workload {
    /// Starts the generator of every `dma` device, each in a window of its own.
    ///
    /// # Errors
    ///
    /// A device that refuses, or too little memory.
    pub fn start(vm: &mut Vm, load: Load) -> Result<Self, WorkloadError> {
        let memory = vm.memory().clone();
        let mut arena = Arena::new(&memory);
        let devices = vm.device_count() as u64;
        let pages = (memory.size() / 100 * load.window_percent / devices / PAGE_SIZE).max(1);
        let mut workload = Self::default();
        for index in 0..vm.device_count() {
            workload.positions.push(Vec::new());
            if !vm.with(index, "identifying the device", Dma::is)? {
                workload.generators.push(None);
                continue;
            }
            let generator = Generator {
                base: arena.take(pages * PAGE_SIZE)?,
                pages,
                seed: load.seed.wrapping_add(index as u64),
                rate: load.rate,
                limit: 0,
            };
            drive(vm, index, |dma| dma.start_generator(&generator))?;
            workload.generators.push(Some(generator));
        }
        Ok(workload)
    }

    /// Waits until every generator has made as many writes as its window has pages: what a measurement starts from.
    ///
    /// # Errors
    ///
    /// A device that does not get there in time, or reports an error.
    pub fn warm_up(&self, vm: &mut Vm, timeout: Duration) -> Result<(), WorkloadError> {
        for (index, generator) in self.generators.iter().enumerate() {
            if let Some(generator) = generator {
                drive(vm, index, |dma| dma.await_progress(generator.pages, timeout))?;
            }
        }
        Ok(())
    }

    /// How many devices are driven.
    pub fn driven(&self) -> usize {
        self.generators.iter().flatten().count()
    }

    /// Starts the generator of one device anew after a reset, with another seed.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn restart(&mut self, vm: &mut Vm, index: usize) -> Result<(), WorkloadError> {
        let Some(generator) = self.generators.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        generator.seed = generator.seed.wrapping_add(0x1_0000);
        let generator = *generator;
        drive(vm, index, |dma| dma.start_generator(&generator))
    }

    /// Notes how far the generators are, just before the source is stopped.
    ///
    /// # Errors
    ///
    /// A device that refuses, or reports an error.
    pub fn note_positions(&mut self, vm: &mut Vm) -> Result<(), WorkloadError> {
        for (index, generator) in self.generators.iter().enumerate() {
            if generator.is_some() {
                self.positions[index] = drive(vm, index, |dma| {
                    dma.healthy()?;
                    dma.positions()
                })?;
            }
        }
        Ok(())
    }

    /// The devices whose window holds the page at `iova`.
    pub fn writers(&self, iova: u64) -> Vec<usize> {
        let holds =
            |generator: &Generator| iova >= generator.base && iova < generator.base + generator.size();
        let windows = self.generators.iter().enumerate();
        windows
            .filter(|(_, generator)| generator.as_ref().is_some_and(holds))
            .map(|(index, _)| index)
            .collect()
    }

    /// Checks at the destination that every generator goes on from where it was, then stops it and compares its window with
    /// what its positions say.
    ///
    /// # Errors
    ///
    /// A device that cannot be asked; what is wrong with its work is in the check.
    pub fn check(&mut self, dest: &mut Vm) -> Result<Vec<ReplayCheck>, WorkloadError> {
        let mut checks = Vec::new();
        for index in 0..self.generators.len() {
            let Some(generator) = self.generators[index] else {
                continue;
            };
            checks.push(self.check_one(dest, index, &generator)?);
            if self.after_check == AfterCheck::Restart {
                self.restart(dest, index)?;
            }
        }
        Ok(checks)
    }

    /// Sets what becomes of the generators once the destination is checked.
    pub fn set_after_check(&mut self, after_check: AfterCheck) {
        self.after_check = after_check;
    }

    fn check_one(
        &self,
        dest: &mut Vm,
        index: usize,
        generator: &Generator,
    ) -> Result<ReplayCheck, WorkloadError> {
        let memory = dest.memory().clone();
        let before = &self.positions[index];
        let mut problems = Vec::new();
        #[expect(clippy::redundant_closure_for_method_calls)]
        // The method's path is not general over the lifetime.
        let found = drive(dest, index, |dma| dma.generator())?;
        if found != *generator {
            problems.push(format!(
                "the generator's registers are {found:?}, were {generator:?}"
            ));
        }
        if let Err(error) = drive(dest, index, continues) {
            problems.push(error.to_string());
        }
        let after = drive(dest, index, |dma| {
            dma.stop_generator()?;
            dma.positions()
        })?;
        if after.len() != before.len() || before.iter().zip(&after).any(|(before, after)| after < before) {
            problems.push(format!("positions went back: {before:?} before, {after:?} after"));
        }
        let wrong = check_window(&memory, generator, &after)?;
        let written = generator.last_writes(&after).iter().flatten().count();
        problems.extend(wrong.iter().take(MAX_PROBLEMS).map(ToString::to_string));
        if wrong.len() > MAX_PROBLEMS {
            problems.push(format!("and {} pages more", wrong.len() - MAX_PROBLEMS));
        }
        Ok(ReplayCheck {
            device: dest.devices()[index].name().to_owned(),
            writes_at_switch_over: before.iter().sum(),
            writes_at_check: after.iter().sum(),
            pages_right: (written - wrong.len()) as u64,
            problems,
        })
    }
}

/// Wrong pages that are told one by one.
const MAX_PROBLEMS: usize = 8;

/// A generator that has not finished writes on.
fn continues(dma: &mut Dma<'_>) -> Result<(), DriverError> {
    dma.healthy()?;
    if dma.read(regs::STATUS)? & regs::STATUS_GEN_RUNNING == 0 {
        return Err(DriverError::Late("the generator's going on"));
    }
    dma.await_progress(1, PROGRESS_TIMEOUT)
}

/// Does something with the `dma` device `index`; its name goes into an error.
fn drive<T>(
    vm: &mut Vm,
    index: usize,
    action: impl FnOnce(&mut Dma<'_>) -> Result<T, DriverError>,
) -> Result<T, WorkloadError> {
    let device = &mut vm.devices()[index];
    let name = device.name().to_owned();
    let done = Dma::attach(device).and_then(|mut dma| action(&mut dma));
    done.map_err(|source| WorkloadError::Driver { device: name, source })
}
