//! [`Guest`]: a VM's memory and devices, as its VMM and its drivers have them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use vfio_user_check::client::LoggingRange;
use vfio_user_check::vmm::{Backing, Device, GuestMemory, MappedArea, Vm};

use crate::engine::{BAR, Kind, Outcome, Registers};
use crate::subject::Subject;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;
/// Bytes of memory at address 0.
pub(crate) const MEMORY: u64 = 32 * MIB;

/// A VM whose first device is the subject.
pub(crate) struct Guest {
    pub(crate) vm: Vm,
    pub(crate) kind: Kind,
    /// The subject's registers, if they can be mapped.
    pub(crate) registers: Option<MappedArea>,
}

impl Guest {
    /// Connects to `sockets`, the first of which is the subject's, and does what firmware and drivers do.
    pub(crate) fn new(subject: &Subject, sockets: &[PathBuf]) -> Result<Self> {
        Self::with(subject, sockets, &[(0, MEMORY)])
    }

    /// The same with memory at these addresses, each with its length.
    pub(crate) fn with(subject: &Subject, sockets: &[PathBuf], memory: &[(u64, u64)]) -> Result<Self> {
        let memory = GuestMemory::with_regions(memory, Backing::Sealed)?;
        let mut vm = Vm::connect(sockets, memory)?;
        vm.enable_devices()?;
        let areas = vm.devices()[0].map_region(BAR)?;
        Ok(Self {
            vm,
            kind: subject.kind,
            registers: areas.into_iter().find(|area| area.offset() == 0),
        })
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        self.vm.memory()
    }

    pub(crate) fn device(&mut self) -> &mut Device {
        &mut self.vm.devices()[0]
    }

    /// Has the device write four bytes at `iova`, by its mapped registers.
    pub(crate) fn write(&self, iova: u64) -> Result<Outcome> {
        let area = self.registers.as_ref().context("the registers are not mapped")?;
        self.kind.write(&mut Registers::Mapped(area), iova)
    }

    /// The same by messages.
    pub(crate) fn write_by_messages(&mut self, iova: u64) -> Result<Outcome> {
        let kind = self.kind;
        kind.write(&mut Registers::Messages(self.device()), iova)
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

    /// Starts the log of the memory from address 0 on.
    pub(crate) fn start_log(&mut self) -> Result<()> {
        let all = LoggingRange {
            iova: 0,
            length: MEMORY,
        };
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

/// Numbers below `end` that look like chance and are the same every time.
pub(crate) fn some_pages(count: usize, end: u64) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let numbers = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    });
    let pages: BTreeSet<u64> = numbers.take(count).collect();
    pages.into_iter().collect()
}

/// Fails unless both are the same pages.
pub(crate) fn equal(what: &str, found: &[u64], expected: &[u64]) -> Result<()> {
    let only_in =
        |a: &[u64], b: &[u64]| -> Vec<u64> { a.iter().filter(|page| !b.contains(page)).copied().collect() };
    ensure!(
        found == expected,
        "{what}: pages {:?} are missing, and {:?} too many",
        only_in(expected, found),
        only_in(found, expected)
    );
    Ok(())
}
