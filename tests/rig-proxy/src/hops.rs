//! What takes no hop through the server: mapped registers, DMA and interrupts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{Kind, PAGE, Registers as _, edu, equal, some_pages};
use vfio_user_check::vmm::IrqKind;

use crate::guest::{Guest, MEMORY};
use crate::registers::BAR;
use crate::served::Served;
use crate::subject::Subject;
use crate::trace::Trace;

/// How often a device interrupts that does so on demand.
const TIMES: u32 = 100;

/// The server stands still while the device is used.
pub(crate) fn server_stands_still(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        let pages = begin(&mut guest)?;
        served.server.pause()?;
        use_device(&guest, &pages)?;
        served.server.go_on()?;
        equal("the report", &guest.report_all()?, &pages)
    };
    let result = check();
    // In any case, or it could not be ended.
    served.server.go_on()?;
    served.explain(result)
}

/// The server makes no system call while the device is used, and some as soon as it is asked for something.
pub(crate) fn no_system_call(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        let pages = begin(&mut guest)?;
        let trace = Trace::begin(served.server.id())?;
        use_device(&guest, &pages)?;
        let calls = trace.end()?;
        ensure!(
            calls.is_empty(),
            "the server made system calls:\n{}",
            calls.join("\n")
        );
        equal("the report", &guest.report_all()?, &pages)?;

        let trace = Trace::begin(served.server.id())?;
        guest.device().read32(BAR, 0)?;
        let calls = trace.end()?;
        ensure!(
            !calls.is_empty(),
            "a register is read by message, and the trace does not have it"
        );
        println!(
            "# {} writes and the interrupts took no system call, a register by message {}",
            pages.len(),
            calls.len()
        );
        Ok(())
    };
    served.explain(check())
}

/// Starts the log and connects what interrupts the device has. Returns what it is to write.
fn begin(guest: &mut Guest) -> Result<Vec<u64>> {
    guest.start_log()?;
    match guest.kind {
        Kind::Testdev => {}
        Kind::Edu => guest.device().connect_interrupts(IrqKind::Msi)?,
        Kind::Nvme | Kind::Vf => guest.device().connect_interrupts(IrqKind::Msix)?,
    }
    Ok(some_pages(guest.kind.limits().pages, MEMORY / PAGE))
}

fn use_device(guest: &Guest, pages: &[u64]) -> Result<()> {
    match guest.kind {
        Kind::Testdev => guest.write_pages(pages),
        Kind::Edu => {
            guest.write_pages(pages)?;
            (0..TIMES).try_for_each(|time| raise(guest, time))
        }
        // It interrupts after each write.
        Kind::Nvme | Kind::Vf => pages.iter().try_for_each(|page| {
            guest.write_pages(&[*page])?;
            ensure!(interrupts_of(guest)? == 1, "no interrupt after page {page}");
            Ok(())
        }),
    }
}

/// Has edu interrupt by MSI, and waits for that.
pub(crate) fn raise(guest: &Guest, time: u32) -> Result<()> {
    let mut registers = guest.mapped()?;
    registers.write32(edu::RAISE, 1)?;
    registers.write32(edu::ACKNOWLEDGE, 1)?;
    let count = interrupts_of(guest)?;
    ensure!(count == 1, "interrupt {time} was signalled {count} times");
    Ok(())
}

/// How often the first vector was signalled. Waits until it was.
pub(crate) fn interrupts_of(guest: &Guest) -> Result<u64> {
    let device = guest.vm.device(0).context("no device")?;
    let interrupts = device.interrupts().context("none is connected")?;
    Ok(interrupts.wait(0, Duration::from_secs(10)))
}
