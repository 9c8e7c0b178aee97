//! The checks of one passthrough device.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{Kind, MIB, Outcome, PAGE, Reads, edu, equal, nvme, some_pages, vf};
use vfio_user_check::client::IrqAction;
use vfio_user_check::vmm::{IrqKind, Region};

use crate::guest::{Guest, MEMORY};
use crate::hops::{interrupts_of, raise};
use crate::registers::BAR;
use crate::served::Served;
use crate::subject::{Subject, Tracker};
use crate::{bad_input, hops, host, mixed, race, reach, removal};

/// Linux's numbers of errors.
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOTTY: u32 = 25;

/// A promise, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Subject) -> Result<()>,
}

/// All checks of a kind of device.
pub(crate) fn all(kind: Kind) -> Vec<Check> {
    let check = |name, run| Check { name, run };
    let mut checks = vec![
        check("the client sees the host's device", identity),
        check("registers are the same by message and by mapping", both_ways),
        check(
            "with --no-bar-mmap no file leaves the server, and the device works",
            no_bar_mmap,
        ),
        check("exactly the pages written are reported, once", exact_sets),
        check("a report of a part leaves the rest due", parts),
        check("memory mapped while the log runs is tracked", late_mapping),
        check(
            "what is unmapped is due, and out of the device's reach",
            unmapping,
        ),
        check("an unmap that asks for its pages gets them", unmap_and_report),
        check(
            "what is unmapped while the device writes it is due, and out of its reach",
            reach::unmapped,
        ),
        check(
            "what the device may only read it does not write, and it is never due",
            reach::read_only,
        ),
        check("no page is lost between writes and reports", race::reports),
        check(
            "an emulated device and this one are in one report",
            mixed::one_report,
        ),
        check(
            "both reach the same memory, until the last one unmaps it",
            mixed::one_memory,
        ),
        check(
            "registers, DMA and interrupts need no server",
            hops::server_stands_still,
        ),
        check(
            "registers, DMA and interrupts take no system call of the server's",
            hops::no_system_call,
        ),
        check("interrupts arrive, are masked and go", interrupts),
        check("a client that has left leaves nothing behind", next_client),
        check(
            "with --large-pages nothing that was written is missing",
            large_pages,
        ),
        check(
            "the host gets the device back from a client that does not listen",
            host::takes_back,
        ),
        check("the host's wish reaches a client that listens", host::asks),
        check(
            "a device that is taken out is let go of, and served when it is back",
            removal::taken_out,
        ),
        check("what the device cannot do is refused", refusals),
        check("bad input is answered with what to do", bad_input::all),
    ];
    if kind.limits().reads == Reads::Yes {
        checks.push(check(
            "a page that the device reads is not due, and is once it is written",
            reach::read,
        ));
    }
    if kind == Kind::Vf {
        checks.push(check(
            "control: a page that the tracker drops is found to be lost",
            race::drops_pages,
        ));
    }
    checks
}

/// Serves the subject and runs a check against it.
fn with(subject: &Subject, options: &[&str], check: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    let served = Served::vfio(subject, options)?;
    let result = Guest::new(subject, &served.sockets).and_then(|mut guest| check(&mut guest));
    served.explain(result)
}

fn identity(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        let id = guest.device().config().id()?;
        ensure!(id == guest.kind.id(), "{id:x?}");
        let info = guest.device().info();
        ensure!(info.num_regions >= 9 && info.num_irqs >= 5, "{info:?}");
        let bar = guest.device().client().region_info(BAR)?;
        ensure!(bar.info.size >= PAGE && bar.fd.is_some(), "{:?}", bar.info);
        guest.device().config().write(0x04, &[0, 0])?;
        // A virtual function has no such bit: it is the physical one's.
        ensure!(
            guest.kind == Kind::Vf || guest.device().read32(BAR, 0).is_err(),
            "the device decodes what it must not"
        );
        Ok(())
    })
}

fn both_ways(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        let area = guest.registers.take().context("not mapped")?;
        // A register that keeps what is written, or makes something of it.
        let (register, of): (u64, fn(u32) -> u32) = match guest.kind {
            Kind::Testdev => (0x04, |value| value),
            Kind::Edu => (edu::LIVENESS, |value| !value),
            Kind::Nvme => (nvme::ADMIN_SUBMISSIONS, |value| value),
            Kind::Vf => (vf::VALUE, |value| value),
        };
        for value in [0x1234_5678, 0xffff_0001] {
            guest.device().write32(BAR, register, value)?;
            let found = [
                guest.device().read32(BAR, register)?,
                area.load(register).context("outside")?,
            ];
            ensure!(found == [of(value); 2], "{found:x?} for {value:#x} by message");
            area.store(register, !value).context("outside")?;
            let found = [
                guest.device().read32(BAR, register)?,
                area.load(register).context("outside")?,
            ];
            ensure!(
                found == [of(!value); 2],
                "{found:x?} for {:#x} by mapping",
                !value
            );
        }
        if guest.kind == Kind::Edu {
            let identification = area.load(edu::IDENTIFICATION).context("outside")?;
            ensure!(identification & 0xff == 0xed, "{identification:#x}");
        }
        Ok(())
    })
}

fn no_bar_mmap(subject: &Subject) -> Result<()> {
    with(subject, &["--no-bar-mmap"], |guest| {
        ensure!(guest.registers.is_none(), "there is something to map");
        for index in 0..9 {
            let region = guest.device().client().region_info(index)?;
            ensure!(region.fd.is_none(), "region {index} comes with a file");
        }
        guest.start_log()?;
        ensure!(guest.write_by_messages(5 * PAGE)? == Outcome::Written, "stopped");
        equal("the report", &guest.report_all()?, &[5])
    })
}

fn exact_sets(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        guest.write_pages(&[7])?;
        guest.start_log()?;
        equal("what was written before", &guest.report_all()?, &[])?;
        for _ in 0..2 {
            let pages = some_pages(guest.kind.limits().pages, MEMORY / PAGE);
            guest.write_pages(&pages)?;
            equal("the first report", &guest.report_all()?, &pages)?;
            equal("the next report", &guest.report_all()?, &[])?;
        }
        guest.device().client().logging_stop()?;
        guest.write_pages(&[9])?;
        guest.start_log()?;
        equal("a log begun anew", &guest.report_all()?, &[])
    })
}

fn parts(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        guest.start_log()?;
        guest.write_pages(&[3, 4, 5, 4200])?;
        equal("one page", &guest.report(4 * PAGE, PAGE)?, &[4])?;
        equal("around it", &guest.report(0, 16 * MIB)?, &[3, 5])?;
        equal("the rest", &guest.report_all()?, &[4200])?;
        let outside = guest.report(MEMORY, PAGE);
        ensure!(outside.is_err(), "what was not started is reported");
        Ok(())
    })
}

fn large_pages(subject: &Subject) -> Result<()> {
    with(subject, &["--large-pages"], |guest| {
        guest.start_log()?;
        for _ in 0..2 {
            let pages = some_pages(guest.kind.limits().pages, MEMORY / PAGE);
            guest.write_pages(&pages)?;
            let report = guest.report_all()?;
            let missing: Vec<_> = pages.iter().filter(|page| !report.contains(page)).collect();
            ensure!(missing.is_empty(), "pages {missing:?} are missing");
        }
        Ok(())
    })
}

fn late_mapping(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let low = MEMORY - MIB;
        let mut guest = Guest::with(subject, &served.sockets, &[(0, low)])?;
        guest.start_log()?;
        equal("nothing", &guest.report_all()?, &[])?;
        let file = vfio_user_check::vmm::memory_file(MIB, vfio_user_check::vmm::Backing::Sealed)?;
        guest.vm.plug_memory(Region::new(low, MIB, file.into(), 0)?)?;
        let page = low / PAGE + 5;
        guest.write_pages(&[page, 1])?;
        equal("the new memory", &guest.report_all()?, &[1, page])
    };
    served.explain(check())
}

fn unmapping(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let (gone, len) = (16 * MIB, 16 * PAGE);
        let mut guest = Guest::with(subject, &served.sockets, &[(0, 16 * MIB), (gone, len)])?;
        guest.start_log()?;
        let first = gone / PAGE;
        guest.write_pages(&[first + 2, 8])?;
        guest.device().client().dma_unmap(gone, len)?;
        let expected: Vec<u64> = match subject.tracker {
            // The bits were the device's, and stay.
            Tracker::Device => vec![8, first + 2],
            Tracker::Iommu => [8].into_iter().chain(first..first + 16).collect(),
        };
        equal("what has gone", &guest.report_all()?, &expected)?;
        ensure!(
            guest.write(gone)? == Outcome::Stopped,
            "the device writes what is unmapped"
        );
        let again = guest.report_all()?;
        // A device may record what the IOMMU has stopped.
        let stopped = subject.tracker == Tracker::Device && again == [first];
        ensure!(
            again.is_empty() || stopped,
            "what has gone is reported again: {again:?}"
        );
        Ok(())
    };
    served.explain(check())
}

fn unmap_and_report(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        guest.start_log()?;
        guest.write_pages(&[8, 9])?;
        let unmapped = guest.device().client().dma_unmap_dirty(0, MEMORY, PAGE)?;
        let dirty = unmapped.dirty.context("no report")?;
        ensure!(
            dirty.contains(8 * PAGE) && dirty.contains(9 * PAGE),
            "pages that were written are missing"
        );
        equal("afterwards", &guest.report_all()?, &[])
    })
}

fn interrupts(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        if guest.kind == Kind::Testdev {
            let counts: Vec<u32> = (0..3)
                .map(|index| Ok(guest.device().client().irq_info(index)?.count))
                .collect::<Result<_>>()?;
            ensure!(counts[1..] == [0, 0], "{counts:?}");
            return Ok(());
        }
        if matches!(guest.kind, Kind::Nvme | Kind::Vf) {
            return message_interrupts(guest);
        }
        guest.device().connect_interrupts(IrqKind::Msi)?;
        for time in 0..3 {
            raise(guest, time)?;
        }
        guest.device().connect_interrupts(IrqKind::Intx)?;
        let intx = IrqKind::Intx.index();
        guest.device().write32(BAR, edu::RAISE, 1)?;
        ensure!(interrupts_of(guest)? == 1, "the pin is not heard of");
        // It is asserted still, and masked until the driver's acknowledgement reaches the client.
        guest.device().client().set_irqs(intx, 0, 1, IrqAction::Unmask)?;
        ensure!(
            interrupts_of(guest)? == 1,
            "a pin that stays asserted is not heard of again"
        );
        guest.device().write32(BAR, edu::ACKNOWLEDGE, 1)?;
        guest.device().client().set_irqs(intx, 0, 1, IrqAction::Unmask)?;
        guest.device().client().set_irqs(intx, 0, 1, IrqAction::Mask)?;
        guest.device().write32(BAR, edu::RAISE, 1)?;
        let device = guest.vm.device(0).context("no device")?;
        let masked = device
            .interrupts()
            .context("none")?
            .wait(0, Duration::from_millis(300));
        ensure!(masked == 0, "a masked pin is heard of");
        guest.device().client().set_irqs(intx, 0, 1, IrqAction::Unmask)?;
        ensure!(interrupts_of(guest)? == 1, "an unmasked pin is not heard of");
        guest.device().write32(BAR, edu::ACKNOWLEDGE, 1)?;
        Ok(guest.device().disconnect_interrupts()?)
    })
}

/// Of a device with MSI-X.
fn message_interrupts(guest: &mut Guest) -> Result<()> {
    for _ in 0..3 {
        guest.device().connect_interrupts(IrqKind::Msix)?;
        guest.write_pages(&[1])?;
        ensure!(interrupts_of(guest)? == 1, "a job's end is not heard of");
        guest
            .device()
            .client()
            .set_irqs(IrqKind::Msix.index(), 0, 1, IrqAction::Trigger)?;
        ensure!(interrupts_of(guest)? == 1, "a test is not heard of");
        guest.device().disconnect_interrupts()?;
    }
    Ok(())
}

fn next_client(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        for _ in 0..3 {
            let mut guest = Guest::with(subject, &served.sockets, &[(0, MIB), (16 * MIB, MIB)])?;
            let refused = guest.report_all().err().context("there is a log already")?;
            ensure!(
                format!("{refused:#}").contains(&EINVAL.to_string()),
                "{refused:#}"
            );
            if guest.kind.tells_of_stops() {
                ensure!(
                    guest.write(8 * MIB)? == Outcome::Stopped,
                    "the last client's memory is still mapped"
                );
            }
            guest.start_log()?;
            guest.write_pages(&[3])?;
            equal("the report", &guest.report_all()?, &[3])?;
            drop(guest);
            let mut other = Guest::with(subject, &served.sockets, &[(0, MEMORY)])?;
            other.write_pages(&[2048])?;
            other.device().client().dma_unmap_all()?;
        }
        Ok(())
    };
    served.explain(check())
}

fn refusals(subject: &Subject) -> Result<()> {
    with(subject, &[], |guest| {
        let can_reset = guest.device().can_reset();
        let migrates = guest.kind == Kind::Vf;
        let client = guest.device().client();
        let errno = |error: vfio_user_check::client::Error| error.errno();
        if migrates {
            ensure!(
                client.migration_flags()? == 0b111,
                "it does not migrate in every way"
            );
        } else {
            ensure!(
                client.migration_flags().map_err(errno) == Err(Some(ENOTTY)),
                "it migrates"
            );
            ensure!(
                client.mig_state().map_err(errno) == Err(Some(ENOTTY)),
                "it has a state"
            );
        }
        if can_reset {
            client.device_reset()?;
        } else {
            ensure!(
                client.device_reset().map_err(errno) == Err(Some(ENOTTY)),
                "it is reset"
            );
        }
        let size = client.region_info(BAR)?.info.size;
        let mut word = [0; 4];
        ensure!(
            client.region_read(BAR, size, &mut word).map_err(errno) == Err(Some(EINVAL)),
            "beyond the BAR"
        );
        ensure!(
            client.set_irqs(1, 77, 1, IrqAction::Trigger).map_err(errno) == Err(Some(EINVAL)),
            "a vector that is not there"
        );
        ensure!(
            client.dma_unmap(0, PAGE).is_err(),
            "a part of a mapping is unmapped"
        );
        Ok(())
    })
}
