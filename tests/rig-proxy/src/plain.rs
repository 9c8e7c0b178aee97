//! A machine whose IOMMU has no dirty bits, and does not keep devices' interrupts apart.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{PAGE, equal};
use vfio_user_check::client::Error;

use crate::bad_input::says;
use crate::checks::{Check, ENOTTY};
use crate::guest::{Guest, MEMORY};
use crate::served::{Served, vfio};
use crate::subject::Subject;

/// Where the kernel is told to hand out devices that could forge interrupts.
const UNSAFE_INTERRUPTS: &str = "/sys/module/iommufd/parameters/allow_unsafe_interrupts";

const EIO: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// All checks. The first has the machine hand its devices out, for the others.
pub(crate) fn all() -> Vec<Check> {
    let check = |name, run| Check { name, run };
    vec![
        check(
            "a device that could forge interrupts is not handed out until that is accepted",
            unsafe_interrupts,
        ),
        check("that nothing tracks the device is explained", explained),
        check(
            "a device that nothing tracks works, and blocks the log of its VM",
            blocked,
        ),
        check("every page is reported, always, if that is asked for", assumed),
    ]
}

fn unsafe_interrupts(subject: &Subject) -> Result<()> {
    let set = |value: &str| fs::write(UNSAFE_INTERRUPTS, value).context("no parameter of iommufd");
    set("N")?;
    let refused = says(
        &mut vfio(subject, &[]),
        &["forge interrupts", "intremap", "allow_unsafe_interrupts"],
    );
    set("Y")?;
    refused?;
    let handed_out = vfio(subject, &["--explain"]).output()?;
    ensure!(handed_out.status.success(), "it is not handed out after that");
    Ok(())
}

fn explained(subject: &Subject) -> Result<()> {
    let output = vfio(subject, &["--explain"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    for words in [
        "no tracker: the VM cannot be migrated",
        "no dirty bits",
        "does not log its DMA",
    ] {
        ensure!(said.contains(words), "{words:?} is not in: {said}");
    }
    Ok(())
}

fn blocked(subject: &Subject) -> Result<()> {
    let served = Served::mixed(subject)?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.write_pages(&[1])?;
        let errno = |error: Error| error.errno();
        let client = guest.device().client();
        ensure!(
            client.migration_flags().map_err(errno) == Err(Some(ENOTTY)),
            "it migrates"
        );
        for device in guest.vm.devices() {
            let started = device.client().logging_start(PAGE, &[]).map_err(errno);
            ensure!(started == Err(Some(EIO)), "a log starts: {started:?}");
        }
        let log = served.server.log();
        ensure!(
            log.contains("nothing can track what mixed/vfio0 writes"),
            "the log does not say why"
        );
        drop(guest);
        // Without the device, which takes a moment to leave, its VM has a log.
        let mut guest = Guest::without_driver(subject, &served.sockets[1..], &[(0, MEMORY)])?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = guest.start_log() {
            ensure!(Instant::now() < deadline, "no log: {error:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
        equal("an idle device", &guest.report_all()?, &[])
    };
    served.explain(check())
}

fn assumed(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &["--assume-all-dirty"])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        let all: Vec<u64> = (0..MEMORY / PAGE).collect();
        for _ in 0..2 {
            equal("a report", &guest.report_all()?, &all)?;
        }
        Ok(())
    };
    served.explain(check())
}
