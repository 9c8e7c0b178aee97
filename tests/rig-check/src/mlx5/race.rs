//! A virtual function that writes while its log is read, and a reader that copies what is reported.
//!
//! Every write changes eight bytes that no write before has changed, so a page that is lost differs from its copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pagetrail_tracker::PageSize;

use super::logged::Logged;
use super::vf::{Fault, Reporting, Writes};
use super::{Vf, check};
use crate::checks::Check;
use crate::memory::PAGE;
use crate::space::range;

/// Pages that one order has written.
const BATCH: u64 = 64;
/// Pages that are written again and again.
const RACED: u64 = 8 * BATCH;
/// And those that are written once, when the race is over.
const PAGES: u64 = RACED + BATCH;
/// Bytes of a write.
const UNIT: u64 = 8;
/// Writes that a page has room for.
const UNITS: u64 = PAGE / UNIT;
/// Reads that a race has at least.
const READS: u64 = 3;

/// Who paces the writes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// A processor of the VM, which waits for each order.
    Driver,
    /// The virtual function, while the VM's processors do something else.
    Device,
}

pub(super) fn checks(vfs: &[Arc<Vf>], writes: u64) -> Vec<Check> {
    let race = move |pace| {
        move |vfs: &[Arc<Vf>]| {
            let (rounds, lost) = run(&vfs[0], pace, writes)?;
            println!("# {rounds} reads meanwhile");
            ensure!(lost.is_empty(), "pages {lost:?} were lost");
            ensure!(
                rounds >= READS,
                "the log was read {rounds} times while pages were written"
            );
            Ok(())
        }
    };
    let control = move |fault| {
        move |vfs: &[Arc<Vf>]| {
            vfs[0].set_fault(fault);
            match run(&vfs[0], Pace::Driver, writes.min(4 * RACED))?.1.len() {
                0 => bail!("no page was lost, though {fault:?}"),
                lost => println!("# {lost} pages were lost"),
            }
            Ok(())
        }
    };
    vec![
        check(
            vfs,
            "no page is lost between a driver's writes and reads",
            race(Pace::Driver),
        ),
        check(
            vfs,
            "no page is lost between a device's own writes and reads",
            race(Pace::Device),
        ),
        check(
            vfs,
            "no page is lost while two virtual functions write",
            move |vfs| together(vfs, writes),
        ),
        check(
            vfs,
            "a page that the device drops is found to be lost",
            control(Fault::DropPage),
        ),
        check(
            vfs,
            "a page that is reported too late is found to be lost",
            control(Fault::LatePages),
        ),
    ]
}

/// Two at a time, each with its reader.
fn together(vfs: &[Arc<Vf>], writes: u64) -> Result<()> {
    let results = thread::scope(|scope| {
        let races: Vec<_> = [(&vfs[0], Pace::Driver), (&vfs[1], Pace::Device)]
            .into_iter()
            .map(|(vf, pace)| scope.spawn(move || run(vf, pace, writes / 2)))
            .collect();
        races
            .into_iter()
            .map(|race| race.join().expect("a race does not panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    ensure!(
        results.iter().all(|(_, lost)| lost.is_empty()),
        "pages were lost: {results:?}"
    );
    Ok(())
}

/// Returns how often the log was read meanwhile, and which pages are not as they were when they were last reported.
fn run(vf: &Arc<Vf>, pace: Pace, writes: u64) -> Result<(u64, Vec<u64>)> {
    let logged = Logged::new(vf, PAGES * PAGE)?;
    logged.start(&[range(0, PAGES * PAGE)], PageSize::SIZE_4K)?;
    vf.set_reporting(Reporting {
        message_pages: 16,
        // So few that the device has to wait; not where a processor's orders keep it from going on.
        queue_depth: match pace {
            Pace::Driver => 0,
            Pace::Device => 8,
        },
        ..Reporting::default()
    });
    let mut copies = Copies(BTreeMap::new());
    let (rounds, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let result = write_all(vf, pace, writes, &rounds);
            done.store(true, Ordering::Release);
            result
        });
        let mut result = Ok(());
        while !done.load(Ordering::Acquire) && result.is_ok() {
            result = copies.update(&logged);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        writer.join().expect("the writer does not panic")?;
        result
    })?;
    // In no report but the last one, and in that for no other reason.
    batch(vf, 0, RACED, None)?;
    copies.update(&logged)?;
    Ok((rounds.into_inner(), copies.lost(&logged)?))
}

/// Writes every page in turn, each time further units: at least so many, and while there is room until there were some reads.
fn write_all(vf: &Vf, pace: Pace, writes: u64, rounds: &AtomicU64) -> Result<()> {
    let (writes, interval) = match pace {
        Pace::Driver => (writes, None),
        // It takes longer for each.
        Pace::Device => (writes / 4, Some(Duration::from_micros(20))),
    };
    for number in 0..RACED / BATCH * UNITS {
        if number >= writes / BATCH && rounds.load(Ordering::Relaxed) >= READS {
            break;
        }
        batch(
            vf,
            number / (RACED / BATCH),
            number % (RACED / BATCH) * BATCH,
            interval,
        )?;
    }
    Ok(())
}

/// One unit of each page of a batch.
fn batch(vf: &Vf, unit: u64, first: u64, interval: Option<Duration>) -> Result<()> {
    vf.write(Writes {
        start: first * PAGE + unit * UNIT,
        stride: PAGE,
        len: UNIT,
        count: BATCH,
        value: u64::MAX / 3,
        interval,
    })
}

/// The pages as they were when they were last reported.
struct Copies(BTreeMap<u64, Vec<u8>>);

impl Copies {
    fn update(&mut self, logged: &Logged) -> Result<()> {
        for page in logged.report(range(0, PAGES * PAGE))? {
            self.0.insert(page, logged.memory.page(page)?);
        }
        Ok(())
    }

    /// Pages that are not as they were copied. Nobody writes them meanwhile.
    fn lost(&self, logged: &Logged) -> Result<Vec<u64>> {
        let clean = vec![0; PAGE as usize];
        let mut lost = Vec::new();
        for page in 0..PAGES {
            if self.0.get(&page).unwrap_or(&clean) != &logged.memory.page(page)? {
                lost.push(page);
            }
        }
        Ok(lost)
    }
}
