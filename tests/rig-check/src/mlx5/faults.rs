//! Checks of what becomes of a report when something breaks: an error, and never a page too few.

use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::vf::Fault;
use pagetrail_rig_devices::{MIB, PAGE, equal};
use pagetrail_tracker::{DirtyTracker, PageSize};

use super::logged::Logged;
use super::{Vf, check};
use crate::checks::Check;
use crate::space::range;

/// Pages that `scripts/run-in-rig` lets a tracker hold.
const LOG_PAGES: u64 = 16384;

pub(super) fn checks(vfs: &[Arc<Vf>]) -> Vec<Check> {
    let broken = |name, fault| check(vfs, name, move |vfs| broken_report(&vfs[0], fault));
    vec![
        broken(
            "a completion with an error fails the report, and the log",
            Fault::ErrorCompletion,
        ),
        broken(
            "a tracker that says it is broken fails the report, and the log",
            Fault::ErrorState,
        ),
        broken(
            "a tracker that changes its state fails the report, and the log",
            Fault::Object,
        ),
        broken(
            "a completion queue that overruns fails the report, and the log",
            Fault::CompletionQueue,
        ),
        broken(
            "a queue pair that breaks fails the report, and the log",
            Fault::QueuePair,
        ),
        check(vfs, "a log with more pages than it can hold fails", full),
    ]
}

/// The report fails, and each after it, until the tracker is started anew: a page of the broken one may be missing.
fn broken_report(vf: &Arc<Vf>, fault: Fault) -> Result<()> {
    let logged = Logged::started(vf)?;
    vf.write_pages_from(10, 5)?;
    equal("before the fault", &logged.report_all()?, &[10, 11, 12, 13, 14])?;
    vf.write_pages_from(20, 5)?;
    vf.set_fault(fault);
    fails(&logged)?;
    vf.clear_faults();
    fails(&logged)?;
    recovers(&logged)
}

fn full(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::new(&vfs[0], LOG_PAGES * PAGE + MIB)?;
    logged.start(&[range(0, LOG_PAGES * PAGE + MIB)], PageSize::SIZE_4K)?;
    logged.vf.write_pages_from(0, LOG_PAGES)?;
    equal(
        "a full log",
        &logged.report_all()?,
        &(0..LOG_PAGES).collect::<Vec<_>>(),
    )?;
    logged.vf.write_pages_from(0, LOG_PAGES + 1)?;
    fails(&logged)?;
    recovers(&logged)
}

fn fails(logged: &Logged) -> Result<()> {
    match logged.report_all() {
        Ok(pages) => anyhow::bail!("a broken log reports {} pages", pages.len()),
        Err(error) => println!("# {error:#}"),
    }
    Ok(())
}

fn recovers(logged: &Logged) -> Result<()> {
    logged.tracker.stop()?;
    logged.start(&[range(0, Logged::LEN)], PageSize::SIZE_4K)?;
    logged.vf.write_pages_from(30, 2)?;
    let found = logged.report_all()?;
    ensure!(found == [30, 31], "a log that was started anew reports {found:?}");
    Ok(())
}
