//! A device that writes while its log is read.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::race::{self, Course, Goal, Score};
use pagetrail_rig_devices::vf::{self, Fault};
use pagetrail_rig_devices::{Outcome, PAGE};

use crate::guest::{DriverMemory, Guest};
use crate::registers::Mapped;
use crate::served::Served;
use crate::subject::Subject;

/// Of a race with a fault.
const CONTROL: Goal = Goal {
    writes: 2000,
    reads: 3,
};

pub(crate) fn reports(subject: &Subject) -> Result<()> {
    run(subject, subject.kind.limits().race, &[])?.check()
}

/// Of a virtual function whose tracker leaves pages out.
pub(crate) fn drops_pages(subject: &Subject) -> Result<()> {
    let lost = run(subject, CONTROL, &[Fault::DropPage])?.lost.len();
    ensure!(lost > 0, "no page was lost");
    println!("# {lost} pages were lost");
    Ok(())
}

/// Has the device write by its mapped registers, while reports are asked for by messages. Only a virtual function has faults.
fn run(subject: &Subject, goal: Goal, faults: &[Fault]) -> Result<Score> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let course = Course::in_groups(goal, &subject.kind.limits());
        let len = (course.pages() + 1) * PAGE;
        let mut guest = Guest::with(subject, &served.sockets, &[(0, len)])?;
        let memory = DriverMemory(Arc::clone(guest.memory()));
        if !faults.is_empty() {
            vf::set_faults(&mut guest.mapped()?, faults)?;
        }
        let (mut engine, area) = guest.take_driver()?;
        guest.start_log_of(len)?;
        let write = |ranges: &[Range<u64>]| {
            let outcome = engine.write(&mut Mapped(&area), ranges)?;
            ensure!(outcome == Outcome::Written, "a write was stopped");
            Ok(())
        };
        let report = |pages: Range<u64>| guest.report(pages.start * PAGE, (pages.end - pages.start) * PAGE);
        race::run(&course, goal, &memory, write, report)
    };
    served.explain(check())
}
