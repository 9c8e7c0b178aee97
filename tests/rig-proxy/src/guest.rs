//! [`Guest`]: a VM's memory and devices, as its VMM and its drivers have them.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{
    Completions, Engine, Kind, MIB, Memory, Outcome, PAGE, Registers, SCRATCH_PAGES, Scratch,
};
use vfio_user_check::client::LoggingRange;
use vfio_user_check::vmm::{Backing, Device, GuestMemory, MappedArea, Vm};

use crate::registers::{BAR, Mapped, Messages};
use crate::subject::Subject;

/// Bytes of memory at address 0.
pub(crate) const MEMORY: u64 = 32 * MIB;
/// Where drivers have memory for themselves, which no log is asked for.
const SCRATCH: u64 = 1 << 30;

/// A VM whose first device is the subject.
pub(crate) struct Guest {
    pub(crate) vm: Vm,
    pub(crate) kind: Kind,
    /// The subject's registers, if they can be mapped.
    pub(crate) registers: Option<MappedArea>,
    engine: RefCell<Box<dyn Engine>>,
}

impl Guest {
    /// Connects to `sockets`, the first of which is the subject's, and does what firmware and drivers do.
    pub(crate) fn new(subject: &Subject, sockets: &[PathBuf]) -> Result<Self> {
        Self::with(subject, sockets, &[(0, MEMORY)])
    }

    /// The same with memory at these addresses, each with its length.
    pub(crate) fn with(subject: &Subject, sockets: &[PathBuf], memory: &[(u64, u64)]) -> Result<Self> {
        let mut guest = Self::without_driver(subject, sockets, memory)?;
        let memory = Arc::clone(guest.memory());
        let engine = match guest.registers.take() {
            Some(area) => {
                let engine = drive(guest.kind, &mut Mapped(&area), &memory);
                guest.registers = Some(area);
                engine
            }
            None => drive(guest.kind, &mut Messages(guest.device()), &memory),
        };
        guest.engine = RefCell::new(engine?);
        Ok(guest)
    }

    /// The same without what the subject's driver does. The first device may be another one.
    pub(crate) fn without_driver(
        subject: &Subject,
        sockets: &[PathBuf],
        memory: &[(u64, u64)],
    ) -> Result<Self> {
        let layout = [memory, &[(SCRATCH, SCRATCH_PAGES * PAGE)]].concat();
        let memory = GuestMemory::with_regions(&layout, Backing::Sealed)?;
        let mut vm = Vm::connect(sockets, memory)?;
        vm.enable_devices()?;
        let areas = vm.devices()[0].map_region(BAR)?;
        Ok(Self {
            vm,
            kind: subject.kind,
            registers: areas.into_iter().find(|area| area.offset() == 0),
            engine: RefCell::new(subject.kind.engine(Completions::Interrupt)),
        })
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        self.vm.memory()
    }

    pub(crate) fn device(&mut self) -> &mut Device {
        &mut self.vm.devices()[0]
    }

    /// The subject's registers.
    pub(crate) fn messages(&mut self) -> Messages<'_> {
        Messages(self.device())
    }

    /// The same, mapped.
    pub(crate) fn mapped(&self) -> Result<Mapped<'_>> {
        let area = self.registers.as_ref();
        Ok(Mapped(area.context("the registers are not mapped")?))
    }

    /// What the subject is driven by, to be driven by somebody else.
    pub(crate) fn take_driver(&mut self) -> Result<(Box<dyn Engine>, MappedArea)> {
        let area = self.registers.take();
        let area = area.context("the registers are not mapped")?;
        let engine = self.engine.replace(self.kind.engine(Completions::Interrupt));
        Ok((engine, area))
    }

    /// Takes it back.
    pub(crate) fn give_driver(&mut self, engine: Box<dyn Engine>, area: MappedArea) {
        self.registers = Some(area);
        self.engine = RefCell::new(engine);
    }

    /// Has the device write four bytes at `iova`, by its mapped registers.
    pub(crate) fn write(&self, iova: u64) -> Result<Outcome> {
        let engine = &mut **self.engine.borrow_mut();
        write(engine, &mut self.mapped()?, self.memory(), iova)
    }

    /// The same by messages.
    pub(crate) fn write_by_messages(&mut self, iova: u64) -> Result<Outcome> {
        let memory = Arc::clone(self.memory());
        let engine = &mut **self.engine.get_mut();
        write(engine, &mut Messages(&mut self.vm.devices()[0]), &memory, iova)
    }

    /// Has the device write a word of each of `pages`.
    pub(crate) fn write_pages(&self, pages: &[u64]) -> Result<()> {
        for page in pages {
            let outcome = self.write(page * PAGE)?;
            ensure!(
                outcome == Outcome::Written,
                "the IOMMU stopped a write of page {page}"
            );
        }
        Ok(())
    }

    /// Has the device read each of `pages`, by its mapped registers.
    pub(crate) fn read_pages(&self, pages: &[u64]) -> Result<()> {
        let engine = &mut **self.engine.borrow_mut();
        pages
            .iter()
            .try_for_each(|page| engine.read(&mut self.mapped()?, page * PAGE..(page + 1) * PAGE))
    }

    /// Starts the log of the memory from address 0 on.
    pub(crate) fn start_log(&mut self) -> Result<()> {
        self.start_log_of(MEMORY)
    }

    /// The same of another length.
    pub(crate) fn start_log_of(&mut self, length: u64) -> Result<()> {
        let all = LoggingRange { iova: 0, length };
        Ok(self.device().client().logging_start(PAGE, &[all])?)
    }

    /// The numbers of the pages that are reported of these bytes, and forgotten.
    pub(crate) fn report(&mut self, iova: u64, length: u64) -> Result<Vec<u64>> {
        let report = self.device().client().logging_report(iova, length, PAGE)?;
        Ok(report.dirty_pages().map(|page| page / PAGE).collect())
    }

    /// The same of all memory.
    pub(crate) fn report_all(&mut self) -> Result<Vec<u64>> {
        self.report(0, MEMORY)
    }
}

/// Makes a device of a guest ready to be driven.
pub(crate) fn drive(
    kind: Kind,
    registers: &mut dyn Registers,
    memory: &Arc<GuestMemory>,
) -> Result<Box<dyn Engine>> {
    let mut engine = kind.engine(Completions::Interrupt);
    let scratch = Scratch {
        memory: Arc::new(DriverMemory(Arc::clone(memory))),
        start: SCRATCH,
    };
    engine
        .begin(registers, &scratch)
        .with_context(|| format!("{kind} does not begin"))?;
    Ok(engine)
}

/// Has a device write four bytes at `iova`. Where there is memory, that is who knows what became of it.
pub(crate) fn write(
    engine: &mut dyn Engine,
    registers: &mut dyn Registers,
    memory: &GuestMemory,
    iova: u64,
) -> Result<Outcome> {
    const CLEAR: [u8; 4] = [0; 4];
    let is_memory = memory.write(iova, &CLEAR).is_ok();
    #[expect(clippy::single_range_in_vec_init, reason = "one write is meant")]
    let told = engine.write(registers, &[iova..iova + 4])?;
    if !is_memory {
        return Ok(told);
    }
    let mut found = CLEAR;
    memory.read(iova, &mut found)?;
    Ok(match found {
        CLEAR => Outcome::Stopped,
        _ => Outcome::Written,
    })
}

/// The memory of a guest, as drivers and the oracle have it.
pub(crate) struct DriverMemory(pub(crate) Arc<GuestMemory>);

impl Memory for DriverMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.0.read(address, bytes)?)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write(address, bytes)?)
    }

    fn load32(&self, address: u64) -> Result<u32> {
        Ok(u32::from_le(self.0.load_acquire(address)?))
    }
}
