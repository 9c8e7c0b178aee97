//! Checks of what the tracker reports.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pagetrail_rig_devices::vf::{Reporting, Writes};
use pagetrail_rig_devices::{MIB, PAGE, equal, some_pages};
use pagetrail_tracker::{DirtyTracker, PageSize, conformance};

use super::logged::Logged;
use super::{Vf, check};
use crate::checks::Check;
use crate::space::range;

/// Pages of 4 KiB in one of 2 MiB.
const PER_LARGE: u64 = 512;

pub(super) fn checks(vfs: &[Arc<Vf>]) -> Vec<Check> {
    vec![
        check(vfs, "every promise of the suite is kept", |vfs| {
            conformance::check_all(|| Logged::small(&vfs[0]).expect("an address space"));
            Ok(())
        }),
        check(vfs, "exactly the pages written are reported, once", exact_sets),
        check(
            vfs,
            "every page size of the device tracks as coarsely as it is",
            page_sizes,
        ),
        check(
            vfs,
            "a part read of a large page leaves the rest due",
            parts_of_large_pages,
        ),
        check(
            vfs,
            "more ranges than the device takes report only what was started",
            many_ranges,
        ),
        check(vfs, "each virtual function reports what it wrote itself", several),
        check(
            vfs,
            "a log that is started again has nothing of the one before",
            restarts,
        ),
        check(vfs, "a reset of a virtual function leaves its log", reset),
        check(vfs, "a report is whole however it is sent", sent_in_pieces),
        check(
            vfs,
            "what is written while a report is sent is in it or in the next",
            written_meanwhile,
        ),
    ]
}

fn exact_sets(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::started(&vfs[0])?;
    equal("nothing written", &logged.report_all()?, &[])?;
    for _ in 0..2 {
        let pages = some_pages(500, Logged::LEN / PAGE);
        for page in &pages {
            logged.vf.write_range(range(page * PAGE + 4, 4))?;
        }
        equal("the first report", &logged.report_all()?, &pages)?;
        equal("the next report", &logged.report_all()?, &[])?;
    }
    logged.vf.write_range(range(10 * PAGE - 4, 8))?;
    equal("a write across an edge", &logged.report_all()?, &[9, 10])
}

fn page_sizes(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::small(&vfs[0])?;
    let sizes = logged.tracker.capabilities().page_sizes;
    let (smallest, large) = (PageSize::SIZE_4K, PageSize::new(2 * MIB).context("a size")?);
    for size in [smallest, large] {
        ensure!(
            sizes.contains(size),
            "the device does not track in pages of {size}"
        );
        logged.start(&[range(0, Logged::LEN)], size)?;
        let per_page = size.bytes() / PAGE;
        logged.vf.write_pages_from(3, 1)?;
        logged.vf.write_pages_from(5 * PER_LARGE + 1, 1)?;
        let expected: Vec<u64> = [3, 5 * PER_LARGE + 1]
            .into_iter()
            .flat_map(|page| page / per_page * per_page..(page / per_page + 1) * per_page)
            .collect();
        equal(&format!("pages of {size}"), &logged.report_all()?, &expected)?;
        equal("the next report", &logged.report_all()?, &[])?;
        logged.tracker.stop()?;
    }
    Ok(())
}

fn parts_of_large_pages(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::small(&vfs[0])?;
    logged.start(
        &[range(0, Logged::LEN)],
        PageSize::new(2 * MIB).context("a size")?,
    )?;
    logged.vf.write_pages_from(7, 1)?;
    equal("a part", &logged.report(range(100 * PAGE, PAGE))?, &[100])?;
    let rest: Vec<u64> = (0..PER_LARGE).filter(|page| *page != 100).collect();
    equal("the rest", &logged.report_all()?, &rest)?;
    logged.vf.write_pages_from(7, 1)?;
    equal("a part, again", &logged.report(range(100 * PAGE, PAGE))?, &[100])?;
    logged.tracker.stop()?;
    logged.start(&[range(0, Logged::LEN)], PageSize::SIZE_4K)?;
    equal("the rest, after a new start", &logged.report_all()?, &[])
}

/// Of 40 ranges with gaps between them, and of 300, which the kernel does not take either.
fn many_ranges(vfs: &[Arc<Vf>]) -> Result<()> {
    for count in [40, 300] {
        let logged = Logged::small(&vfs[0])?;
        let every = Logged::LEN / PAGE / count;
        let starts = || (0..count).map(|number| number * every);
        let ranges: Vec<_> = starts().map(|page| range(page * PAGE, 4 * PAGE)).collect();
        logged.start(&ranges, PageSize::SIZE_4K)?;
        logged.vf.write_pages_from(0, Logged::LEN / PAGE)?;
        for (page, started) in starts().zip(&ranges) {
            let expected: Vec<u64> = (page..page + 4).collect();
            equal("a range", &logged.report(*started)?, &expected)?;
        }
        ensure!(
            logged.report(range(4 * PAGE, PAGE)).is_err(),
            "what was not started is reported"
        );
    }
    Ok(())
}

fn several(vfs: &[Arc<Vf>]) -> Result<()> {
    let all = vfs.iter().map(Logged::started).collect::<Result<Vec<_>>>()?;
    for _ in 0..2 {
        for (number, logged) in (0..).zip(&all) {
            logged.vf.write_pages_from(100 * number, 10 + number)?;
        }
        for (number, logged) in (0..).zip(&all) {
            let expected: Vec<u64> = (100 * number..100 * number + 10 + number).collect();
            equal("a virtual function", &logged.report_all()?, &expected)?;
        }
    }
    Ok(())
}

fn restarts(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::small(&vfs[0])?;
    for round in 0..3 {
        logged.vf.write_pages_from(50, 5)?;
        logged.start(&[range(0, Logged::LEN)], PageSize::SIZE_4K)?;
        equal("before the start", &logged.report_all()?, &[])?;
        logged.vf.write_pages_from(round, 1)?;
        equal("since the start", &logged.report_all()?, &[round])?;
        logged.vf.write_pages_from(60, 5)?;
        logged.tracker.stop()?;
    }
    Ok(())
}

/// It is the adapter that keeps it.
fn reset(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::started(&vfs[0])?;
    logged.vf.write_pages_from(10, 2)?;
    logged.vf.reset();
    logged.vf.write_pages_from(20, 2)?;
    equal("around a reset", &logged.report_all()?, &[10, 11, 20, 21])
}

/// Late, in messages of one page, and with a queue of one message, over which the device has to wait for the driver.
fn sent_in_pieces(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::started(&vfs[0])?;
    let ways = [
        Reporting {
            delay: Duration::from_millis(50),
            ..Reporting::default()
        },
        Reporting {
            message_pages: 1,
            ..Reporting::default()
        },
        Reporting {
            message_pages: 3,
            queue_depth: 1,
            ..Reporting::default()
        },
        Reporting {
            delay: Duration::from_millis(5),
            message_pages: 1,
            queue_depth: 2,
        },
    ];
    for reporting in ways {
        logged.vf.set_reporting(reporting);
        for count in [0, 1, 100] {
            if count > 0 {
                logged.vf.write_pages_from(1000, count)?;
            }
            let expected: Vec<u64> = (1000..1000 + count).collect();
            equal(&format!("{reporting:?}"), &logged.report_all()?, &expected)?;
        }
    }
    Ok(())
}

/// While reports are slow, the virtual function writes each page once: every page is reported, and only once.
fn written_meanwhile(vfs: &[Arc<Vf>]) -> Result<()> {
    let logged = Logged::started(&vfs[0])?;
    logged.vf.set_reporting(Reporting {
        delay: Duration::from_millis(2),
        message_pages: 8,
        queue_depth: 1,
    });
    // Slower where the machine is so busy that all is written before there is a report.
    for interval in [100, 1000, 10_000].map(Duration::from_micros) {
        if reports_while_writing(&logged, interval)? > 1 {
            return Ok(());
        }
    }
    bail!("all is written before there is a report")
}

/// Returns how many reports there were meanwhile.
fn reports_while_writing(logged: &Logged, interval: Duration) -> Result<u64> {
    const PAGES: u64 = 1000;
    logged.vf.begin(Writes {
        start: 0,
        stride: PAGE,
        len: 8,
        count: PAGES,
        value: 1,
        interval: Some(interval),
    })?;
    let (mut found, mut reports) = (Vec::new(), 0);
    while logged.vf.is_busy() {
        found.extend(logged.report_all()?);
        reports += 1;
    }
    logged.vf.finish()?;
    found.extend(logged.report_all()?);
    println!("# {PAGES} pages in {reports} reports");
    found.sort_unstable();
    equal("all reports", &found, &(0..PAGES).collect::<Vec<_>>())?;
    Ok(reports)
}
