//! What a device may reach: memory that goes while it writes, and memory that it may only read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{MIB, Outcome, PAGE, equal};
use vfio_user_check::vmm::{Backing, Region, memory_file};
use vfio_user_check::wire::{DmaMap, consts};

use crate::guest::Guest;
use crate::registers::Mapped;
use crate::served::Served;
use crate::subject::{Subject, Tracker};

/// Where there is memory that goes, or may not be written.
const SPECIAL: u64 = 16 * MIB;
const PAGES: u64 = 16;

const PATIENCE: Duration = Duration::from_secs(20);

/// What is unmapped while the device writes it is due, and out of its reach. The device works on.
pub(crate) fn unmapped(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let layout = [(0, SPECIAL), (SPECIAL, PAGES * PAGE)];
        let mut guest = Guest::with(subject, &served.sockets, &layout)?;
        guest.start_log()?;
        let before = unmap_meanwhile(&mut guest)?;
        let due = guest.report_all()?;
        for page in (SPECIAL / PAGE..).take(PAGES as usize) {
            let is_due = match subject.tracker {
                Tracker::Iommu => due.contains(&page),
                // What it did not write is not.
                Tracker::Device => is_clean(&guest, page)? || before.contains(&page) || due.contains(&page),
            };
            ensure!(is_due, "page {page} is not due");
        }
        ensure!(
            guest.write(SPECIAL)? == Outcome::Stopped,
            "the device writes what is unmapped"
        );
        // A device may record what the IOMMU has stopped.
        guest.report_all()?;
        guest.write_pages(&[8])?;
        equal("afterwards", &guest.report_all()?, &[8])
    };
    served.explain(check())
}

/// Unmaps the memory at [`SPECIAL`] while the device writes all of its pages, again and again. Returns what was reported before.
fn unmap_meanwhile(guest: &mut Guest) -> Result<Vec<u64>> {
    let (mut engine, area) = guest.take_driver()?;
    let writes: Vec<_> = (0..PAGES)
        .map(|page| SPECIAL + page * PAGE)
        .map(|start| start..start + 8)
        .collect();
    let is_over = AtomicBool::new(false);
    let mut write = || engine.write(&mut Mapped(&area), &writes);
    let reported = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                write()?;
            }
            anyhow::Ok(())
        });
        let reported = unmap_once_written(guest);
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")?;
        reported
    });
    guest.give_driver(engine, area);
    reported
}

fn unmap_once_written(guest: &mut Guest) -> Result<Vec<u64>> {
    let deadline = Instant::now() + PATIENCE;
    let mut reported = Vec::new();
    while is_clean(guest, SPECIAL / PAGE)? {
        ensure!(Instant::now() < deadline, "the device does not write");
        reported.extend(guest.report_all()?);
    }
    guest.device().client().dma_unmap(SPECIAL, PAGES * PAGE)?;
    Ok(reported)
}

/// Whether the device has not written the beginning of a page.
fn is_clean(guest: &Guest, page: u64) -> Result<bool> {
    let mut byte = [0];
    guest.memory().read(page * PAGE, &mut byte)?;
    Ok(byte == [0])
}

/// What the device may only read it does not write, and it is never due.
pub(crate) fn read_only(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::with(subject, &served.sockets, &[(0, SPECIAL)])?;
        guest.start_log()?;
        let file = memory_file(MIB, Backing::Sealed)?;
        let region = guest.memory().add(Region::new(SPECIAL, MIB, file.into(), 0)?);
        let map = DmaMap {
            flags: consts::DMA_MAP_READ,
            ..region.dma_map()
        };
        let file = std::os::fd::AsFd::as_fd(region.file());
        guest.device().client().dma_map(map, Some(file))?;
        guest.report_all()?;
        ensure!(
            guest.write(SPECIAL + 5 * PAGE)? == Outcome::Stopped,
            "the device writes what it may only read"
        );
        let stopped = SPECIAL / PAGE + 5;
        guest.write_pages(&[300])?;
        let due = guest.report_all()?;
        // A device may record what the IOMMU has stopped.
        let recorded = subject.tracker == Tracker::Device && due == [300, stopped];
        ensure!(recorded || due == [300], "{due:?} are due");
        guest.device().client().dma_unmap(SPECIAL, MIB)?;
        equal("what could only be read", &guest.report_all()?, &[])
    };
    served.explain(check())
}

/// What the device reads is not due, and is once it is written.
pub(crate) fn read(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        for _ in 0..2 {
            guest.read_pages(&[30, 31]).context("the device does not read")?;
            equal("two pages read", &guest.report_all()?, &[])?;
            guest.write_pages(&[31])?;
            equal("one of them written", &guest.report_all()?, &[31])?;
        }
        Ok(())
    };
    served.explain(check())
}
