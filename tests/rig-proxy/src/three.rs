//! One VM with a device that the IOMMU tracks, one that tracks itself, and an emulated one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::vf::{self, Fault};
use pagetrail_rig_devices::{Kind, Outcome, PAGE, equal};
use vfio_user_check::client::LoggingRange;
use vfio_user_check::vmm::{Device, GuestMemory};

use crate::guest::{self, Guest, MEMORY};
use crate::migration::EIO;
use crate::mixed::emulated_write;
use crate::registers::Messages;
use crate::served::Served;
use crate::subject::{Subject, Tracker};

/// A promise of a VM with both devices, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Subject, &Subject) -> Result<()>,
}

/// All checks.
pub(crate) fn all() -> Vec<Check> {
    let check = |name, run| Check { name, run };
    vec![
        check(
            "the pages of all are in one report, by whichever device",
            one_report,
        ),
        check(
            "each of them may stop its log, and what it wrote stays due",
            stopping,
        ),
        check("each of them may leave, and what it wrote stays due", leaving),
        check(
            "one that fails loses the log of all, until it begins anew",
            one_fails,
        ),
    ]
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Where the devices are among the guest's.
const TRACKED: usize = 0;
const OWN: usize = 1;
const EMULATED: usize = 2;

/// Serves both devices and an emulated one, and runs a check.
fn with(other: &Subject, vf: &Subject, check: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    let served = Served::vm(&[other, &vf.by(Tracker::Device)])?;
    let result = Guest::new(other, &served.sockets).and_then(|mut guest| check(&mut guest));
    served.explain(result)
}

fn start_all(guest: &mut Guest) -> Result<()> {
    let all = LoggingRange {
        iova: 0,
        length: MEMORY,
    };
    for device in guest.vm.devices() {
        device.client().logging_start(PAGE, &[all])?;
    }
    Ok(())
}

/// Has the device that tracks itself write a page.
fn write_own(guest: &mut Guest, page: u64) -> Result<()> {
    let memory = Arc::clone(guest.memory());
    let outcome = write(Kind::Vf, &mut guest.vm.devices()[OWN], &memory, page)?;
    ensure!(
        outcome == Outcome::Written,
        "the IOMMU stopped a write of page {page}"
    );
    Ok(())
}

/// Has a device that is a guest's write a page.
fn write(kind: Kind, device: &mut Device, memory: &Arc<GuestMemory>, page: u64) -> Result<Outcome> {
    let registers = &mut Messages(device);
    let mut engine = guest::drive(kind, registers, memory)?;
    guest::write(&mut *engine, registers, memory, page * PAGE)
}

fn write_emulated(guest: &mut Guest, page: u64) -> Result<()> {
    emulated_write(&mut guest.vm.devices()[EMULATED], page)
}

/// The pages that are reported by a device's connection.
fn report(guest: &mut Guest, device: usize) -> Result<Vec<u64>> {
    let client = guest.vm.devices()[device].client();
    let report = client.logging_report(0, MEMORY, PAGE)?;
    Ok(report.dirty_pages().map(|page| page / PAGE).collect())
}

fn one_report(other: &Subject, vf: &Subject) -> Result<()> {
    with(other, vf, |guest| {
        start_all(guest)?;
        for round in 0..3 {
            let first = round * 100;
            guest.write_pages(&[first + 1, first + 7])?;
            write_own(guest, first + 2)?;
            write_own(guest, first + 7)?;
            write_emulated(guest, first + 3)?;
            let expected = [1, 2, 3, 7].map(|page| first + page);
            equal("the report", &report(guest, round as usize)?, &expected)?;
            for device in [TRACKED, OWN, EMULATED] {
                equal("the next one", &report(guest, device)?, &[])?;
            }
        }
        Ok(())
    })
}

fn stopping(other: &Subject, vf: &Subject) -> Result<()> {
    with(other, vf, |guest| {
        start_all(guest)?;
        guest.write_pages(&[1])?;
        write_own(guest, 2)?;
        write_emulated(guest, 3)?;
        guest.vm.devices()[OWN].client().logging_stop()?;
        guest.vm.devices()[TRACKED].client().logging_stop()?;
        guest.write_pages(&[4])?;
        write_own(guest, 5)?;
        equal("what is left", &report(guest, EMULATED)?, &[1, 2, 3, 4, 5])?;
        guest.vm.devices()[EMULATED].client().logging_stop()?;
        start_all(guest)?;
        equal("a log begun anew", &report(guest, TRACKED)?, &[])
    })
}

/// Connects a device of its own to a VM, with all memory, and does what a driver does.
fn join(guest: &Guest, socket: &Path) -> Result<Device> {
    let mut device = Device::connect(socket)?;
    for region in guest.memory().regions() {
        region.map_into(device.client())?;
    }
    device.enable()?;
    Ok(device)
}

fn leaving(other: &Subject, vf: &Subject) -> Result<()> {
    let served = Served::vm(&[other, &vf.by(Tracker::Device)])?;
    let check = || {
        // The emulated device stays.
        let mut guest = Guest::without_driver(other, &served.sockets[EMULATED..], &[(0, MEMORY)])?;
        guest.start_log()?;
        for (which, subject, page) in [(TRACKED, other, 7), (OWN, vf, 9)] {
            let mut device = join(&guest, &served.sockets[which])?;
            let outcome = write(subject.kind, &mut device, guest.memory(), page)?;
            ensure!(outcome == Outcome::Written, "the IOMMU stopped {}", subject.kind);
            drop(device);
            await_page(&mut guest, page)?;
        }
        equal("afterwards", &guest.report_all()?, &[])
    };
    served.explain(check())
}

/// Waits until exactly `page` is reported: the end of a connection takes a moment.
fn await_page(guest: &mut Guest, page: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = guest.report_all()?;
        if !report.is_empty() {
            return equal("what has left", &report, &[page]);
        }
        ensure!(Instant::now() < deadline, "page {page} is missing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn one_fails(other: &Subject, vf: &Subject) -> Result<()> {
    with(other, vf, |guest| {
        start_all(guest)?;
        guest.write_pages(&[1])?;
        write_own(guest, 2)?;
        vf::set_faults(
            &mut Messages(&mut guest.vm.devices()[OWN]),
            &[Fault::ErrorCompletion],
        )?;
        for device in [TRACKED, OWN, EMULATED] {
            let client = guest.vm.devices()[device].client();
            let report = client.logging_report(0, MEMORY, PAGE);
            let errno = report.err().context("a report without a tracker")?.errno();
            ensure!(errno == Some(EIO), "{errno:?}");
        }
        vf::set_faults(&mut Messages(&mut guest.vm.devices()[OWN]), &[])?;
        for device in guest.vm.devices() {
            // A tracker that is broken may say so once more.
            let _ = device.client().logging_stop();
        }
        start_all(guest)?;
        guest.write_pages(&[8])?;
        write_own(guest, 9)?;
        equal("a log begun anew", &report(guest, EMULATED)?, &[8, 9])
    })
}
