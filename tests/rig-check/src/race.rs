//! A device that writes while its log is read and memory comes and goes.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::race::{self, Course, Goal};
use pagetrail_rig_devices::{Copies, PAGE};
use pagetrail_tracker::{Access, IovaRange, Leaves};

use crate::device::Device;
use crate::memory::Memory;
use crate::space::{Space, range};

/// Pages of the mapping that comes and goes, at the end of the memory.
const COME_AND_GO: u64 = 16;
/// Times that it goes, at least.
const UNMAPS: u64 = 300;
/// One time in so many, all other pages are read as well.
const REST: u64 = 16;

/// Against reads.
pub(crate) fn reads(device: &Arc<Device>, goal: Goal) -> Result<()> {
    let course = Course::in_groups(goal, &device.limits());
    let all = pages(&(0..course.pages() + 1));
    let space = Space::empty(device, Memory::small(all.len())?, Leaves::Small)?;
    space.map(all, Access::Write)?;
    space.start(&[all])?;
    let report = |reported| space.report(pages(&reported));
    race::run(
        &course,
        goal,
        &space.memory,
        |ranges| device.write(ranges),
        report,
    )?
    .check()
}

/// Against reads, and a mapping that comes and goes: once it has gone nobody writes it, and it must be as it was copied.
pub(crate) fn unmaps(device: &Arc<Device>, goal: Goal) -> Result<()> {
    let goal = Goal {
        reads: UNMAPS,
        ..goal
    };
    let course = Course::in_turn(goal, &device.limits(), 2 * COME_AND_GO);
    let (all, gone) = (0..course.pages(), course.pages() - COME_AND_GO..course.pages());
    let space = Space::empty(device, Memory::small(course.pages() * PAGE)?, Leaves::Small)?;
    space.map(pages(&(0..gone.start)), Access::Write)?;
    space.map(pages(&gone), Access::Write)?;
    space.start(&[pages(&all)])?;
    let report = |reported: &Range<u64>| space.report(pages(reported));
    let mut copies = Copies::new(course.pages());
    let mut round = 0;
    let write = |ranges: &[Range<u64>]| device.write(ranges);
    let tally = race::against(&course, goal, write, |_| {
        round += 1;
        let before = if round % REST == 0 { &all } else { &gone };
        copies.update(&space.memory, &report(before)?)?;
        space.ioas.unmap(pages(&gone))?;
        copies.update(&space.memory, &report(&gone)?)?;
        none(&copies.lost(&space.memory, gone.clone())?)?;
        space.map(pages(&gone), Access::Write)
    })?;
    let stopped = tally.writes - course.arrived(&space.memory, tally.writes)?;
    println!(
        "# {} writes, of which {stopped} were stopped, against {} unmaps",
        tally.writes, tally.reads
    );
    let _quiesced = space.quiesce();
    copies.update(&space.memory, &report(&all)?)?;
    none(&copies.lost(&space.memory, all)?)
}

fn none(lost: &[u64]) -> Result<()> {
    ensure!(lost.is_empty(), "pages {lost:?} were lost");
    Ok(())
}

/// The bytes of pages, by their numbers.
fn pages(numbers: &Range<u64>) -> IovaRange {
    range(numbers.start * PAGE, (numbers.end - numbers.start) * PAGE)
}
