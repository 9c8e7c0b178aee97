//! The subject and an emulated device in one VM.

use std::time::Duration;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::{Outcome, PAGE, equal};
use vfio_user_check::client::LoggingRange;
use vfio_user_check::driver::{Dma, Generator};
use vfio_user_check::vmm::Device;

use crate::guest::{Guest, MEMORY};
use crate::served::Served;
use crate::subject::Subject;

/// How long the emulated device may take for a page.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has the emulated device write one page.
pub(crate) fn emulated_write(device: &mut Device, page: u64) -> Result<()> {
    let mut dma = Dma::attach(device)?;
    dma.start_generator(&Generator {
        base: page * PAGE,
        pages: 1,
        seed: 1,
        rate: 0,
        limit: 0,
    })?;
    dma.await_progress(1, PATIENCE)?;
    Ok(dma.stop_generator()?)
}

/// The pages that are reported by the emulated device's connection.
fn report_of_emulated(guest: &mut Guest) -> Result<Vec<u64>> {
    let client = guest.vm.devices()[1].client();
    let report = client.logging_report(0, MEMORY, PAGE)?;
    Ok(report.dirty_pages().map(|page| page / PAGE).collect())
}

pub(crate) fn one_report(subject: &Subject) -> Result<()> {
    let served = Served::mixed(subject)?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        let all = LoggingRange {
            iova: 0,
            length: MEMORY,
        };
        guest.vm.devices()[1].client().logging_start(PAGE, &[all])?;
        guest.write_pages(&[3, 64])?;
        emulated_write(&mut guest.vm.devices()[1], 5)?;
        equal(
            "by the emulated device",
            &report_of_emulated(&mut guest)?,
            &[3, 5, 64],
        )?;
        equal("by this one, again", &guest.report_all()?, &[])?;
        emulated_write(&mut guest.vm.devices()[1], 4000)?;
        guest.write_pages(&[4000, 4001])?;
        equal("by this one", &guest.report_all()?, &[4000, 4001])?;
        equal(
            "by the emulated device, again",
            &report_of_emulated(&mut guest)?,
            &[],
        )?;
        // The log goes on for the one that is left.
        guest.device().client().logging_stop()?;
        guest.write_pages(&[17])?;
        emulated_write(&mut guest.vm.devices()[1], 18)?;
        equal("with one log", &report_of_emulated(&mut guest)?, &[17, 18])
    };
    served.explain(check())
}

pub(crate) fn one_memory(subject: &Subject) -> Result<()> {
    let served = Served::mixed(subject)?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        guest.vm.devices()[1].client().dma_unmap(0, MEMORY)?;
        guest.write_pages(&[1])?;
        guest.device().client().dma_unmap(0, MEMORY)?;
        ensure!(
            guest.write(PAGE)? == Outcome::Stopped,
            "nothing is mapped any more"
        );
        let report = guest.report_all()?;
        ensure!(report.contains(&1), "the page written is missing");
        let region = guest.memory().regions().remove(0);
        region.map_into(guest.device().client())?;
        guest.report_all()?;
        guest.write_pages(&[2])?;
        equal("mapped anew", &guest.report_all()?, &[2])
    };
    served.explain(check())
}
