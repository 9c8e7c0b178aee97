//! A virtual function that writes while its log is read.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::race::{self, Course, Goal, Score};
use pagetrail_rig_devices::vf::{Fault, Reporting, Writes};
use pagetrail_rig_devices::{Kind, PAGE};
use pagetrail_tracker::PageSize;

use super::logged::Logged;
use super::{Vf, check};
use crate::checks::Check;
use crate::space::range;

/// Of a race with a fault.
const CONTROL: Goal = Goal {
    writes: 2000,
    reads: 3,
};

/// Who paces the writes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// A processor of the VM, which waits for each order.
    Driver,
    /// The virtual function, while the VM's processors do something else.
    Device,
}

impl Pace {
    /// Time before each write.
    fn interval(self) -> Option<Duration> {
        match self {
            Self::Driver => None,
            Self::Device => Some(Duration::from_micros(20)),
        }
    }

    fn reporting(self) -> Reporting {
        Reporting {
            message_pages: 16,
            // So few that the device has to wait; not where a processor's orders keep it from going on.
            queue_depth: match self {
                Self::Driver => 0,
                Self::Device => 8,
            },
            ..Reporting::default()
        }
    }
}

pub(super) fn checks(vfs: &[Arc<Vf>], writes: u64) -> Vec<Check> {
    let limits = Kind::Vf.limits().race;
    let goal = Goal {
        writes: limits.writes.min(writes),
        ..limits
    };
    // Each takes longer.
    let slow = Goal {
        writes: goal.writes / 2,
        ..goal
    };
    let race = |pace, goal| move |vfs: &[Arc<Vf>]| run(&vfs[0], pace, goal)?.check();
    let control = |fault| {
        move |vfs: &[Arc<Vf>]| {
            vfs[0].set_fault(fault);
            let lost = run(&vfs[0], Pace::Driver, CONTROL)?.lost.len();
            ensure!(lost > 0, "no page was lost, though {fault:?}");
            println!("# {lost} pages were lost");
            Ok(())
        }
    };
    vec![
        check(
            vfs,
            "no page is lost between a driver's writes and reads",
            race(Pace::Driver, goal),
        ),
        check(
            vfs,
            "no page is lost between a device's own writes and reads",
            race(Pace::Device, slow),
        ),
        check(
            vfs,
            "no page is lost while two virtual functions write",
            move |vfs| together(vfs, slow),
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

/// Two at a time, each with its reader, which do half of it each.
fn together(vfs: &[Arc<Vf>], goal: Goal) -> Result<()> {
    let half = Goal {
        writes: goal.writes / 2,
        reads: goal.reads / 2,
    };
    thread::scope(|scope| {
        let races: Vec<_> = [(&vfs[0], Pace::Driver), (&vfs[1], Pace::Device)]
            .into_iter()
            .map(|(vf, pace)| scope.spawn(move || run(vf, pace, half)?.check()))
            .collect();
        races
            .into_iter()
            .try_for_each(|race| race.join().expect("a race does not panic"))
    })
}

fn run(vf: &Arc<Vf>, pace: Pace, goal: Goal) -> Result<Score> {
    let course = Course::in_groups(goal, &Kind::Vf.limits());
    let bytes = |pages: Range<u64>| range(pages.start * PAGE, (pages.end - pages.start) * PAGE);
    let all = bytes(0..course.pages() + 1);
    let logged = Logged::new(vf, all.len())?;
    logged.start(&[all], PageSize::SIZE_4K)?;
    vf.set_reporting(pace.reporting());
    let write = |ranges: &[Range<u64>]| {
        vf.write(Writes {
            interval: pace.interval(),
            ..Writes::of(ranges).context("these writes are several jobs")?
        })
    };
    let report = |pages| logged.report(bytes(pages));
    race::run(&course, goal, &logged.memory, write, report)
}
