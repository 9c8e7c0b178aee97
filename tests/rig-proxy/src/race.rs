//! A device that writes while its log is read.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::race::{self, Course};
use pagetrail_rig_devices::{Outcome, PAGE};

use crate::guest::{DriverMemory, Guest};
use crate::registers::Mapped;
use crate::served::Served;
use crate::subject::Subject;

pub(crate) fn reports(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let limits = subject.kind.limits();
        let course = Course::in_groups(limits.race, &limits);
        let len = (course.pages() + 1) * PAGE;
        let mut guest = Guest::with(subject, &served.sockets, &[(0, len)])?;
        let memory = DriverMemory(Arc::clone(guest.memory()));
        let (mut engine, area) = guest.take_driver()?;
        guest.start_log_of(len)?;
        let write = |ranges: &[Range<u64>]| {
            let outcome = engine.write(&mut Mapped(&area), ranges)?;
            ensure!(outcome == Outcome::Written, "a write was stopped");
            Ok(())
        };
        let report = |pages: Range<u64>| guest.report(pages.start * PAGE, (pages.end - pages.start) * PAGE);
        race::run(&course, limits.race, &memory, write, report)?.check()
    };
    served.explain(check())
}
