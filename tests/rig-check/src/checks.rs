//! The checks.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_tracker::{Access, DirtyControl, Leaves, conformance};

use crate::device::Device;
use crate::engine::{Kind, Outcome};
use crate::memory::{MIB, Memory, PAGE};
use crate::race;
use crate::space::{Space, SuiteRig, range};

/// A promise, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: Box<Run>,
}

type Run = dyn Fn(&Arc<Device>) -> Result<()>;

/// All checks, with so many writes in each race.
pub(crate) fn all(race_writes: u64) -> Vec<Check> {
    let check = |name, run: fn(&Arc<Device>) -> Result<()>| Check {
        name,
        run: Box::new(run),
    };
    let race = |name, run: fn(&Arc<Device>, u64) -> Result<()>| Check {
        name,
        run: Box::new(move |device| run(device, race_writes)),
    };
    vec![
        check("every promise of the suite is kept", suite),
        check("exactly the pages written are reported, once", exact_sets),
        check("what is looked at without clearing stays due", peeks),
        check("a report of a part leaves the rest due", parts),
        check("a page written before the start is not reported", before_start),
        check("memory mapped while tracking runs is tracked", late_mapping),
        check(
            "what is unmapped under a running device is due as a whole",
            unmap_running,
        ),
        check(
            "what is unmapped under a quiesced device is as due as it was written",
            unmap_quiesced,
        ),
        check("what a device wrote is due after it was detached", detach),
        check("what devices cannot write is never due", read_only),
        check(
            "of a large page all is due, and a part read leaves the rest",
            large_pages,
        ),
        race("no page is lost between writes and reads", race::reads),
        race("no page is lost between writes, reads and unmaps", race::unmaps),
    ]
}

/// Numbers that look like chance and are the same every time.
fn some_pages(count: usize, end: u64) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let numbers = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % end
    });
    let pages: BTreeSet<u64> = numbers.take(count).collect();
    pages.into_iter().collect()
}

fn equal(what: &str, found: &[u64], expected: &[u64]) -> Result<()> {
    let only_in =
        |a: &[u64], b: &[u64]| -> Vec<u64> { a.iter().filter(|page| !b.contains(page)).copied().collect() };
    ensure!(
        found == expected,
        "{what}: pages {:?} are missing, and {:?} too many",
        only_in(expected, found),
        only_in(found, expected)
    );
    Ok(())
}

/// How many pages are written where a device takes long for each.
fn count_for(device: &Device) -> usize {
    match device.engine.kind {
        Kind::IommuTestdev => 500,
        Kind::Edu => 12,
    }
}

/// The library's own suite; with a slow device only what does not write much.
fn suite(device: &Arc<Device>) -> Result<()> {
    if device.engine.kind == Kind::Edu {
        return exact_sets(device);
    }
    conformance::check_all(|| SuiteRig(Space::small(device).expect("an address space")));
    Ok(())
}

fn exact_sets(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    equal("nothing written", &space.report(all)?, &[])?;
    for _ in 0..2 {
        let pages = some_pages(count_for(device), Space::LEN / PAGE);
        space.write_pages(&pages)?;
        equal("the first report", &space.report(all)?, &pages)?;
        equal("the next report", &space.report(all)?, &[])?;
    }
    Ok(())
}

fn peeks(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    space.write_pages(&[1, 70, 9000])?;
    for _ in 0..2 {
        equal("a peek", &space.peek(all)?, &[1, 70, 9000])?;
    }
    equal("a report", &space.report(all)?, &[1, 70, 9000])?;
    equal("a peek afterwards", &space.peek(all)?, &[])
}

fn parts(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    // What was not started is mapped, and written as well.
    space.start(&[range(0, 16 * MIB), range(20 * MIB, 20 * MIB)])?;
    let middle = 5200;
    space.write_pages(&[3, 4, 5, 4200, 8191, 8192])?;
    ensure!(
        space.report(range(16 * MIB, 4 * MIB)).is_err(),
        "what was not started is reported"
    );
    equal("one page", &space.report(range(4 * PAGE, PAGE))?, &[4])?;
    equal("around it", &space.report(range(0, 16 * MIB))?, &[3, 5])?;
    equal(
        "across two mappings",
        &space.report(range(middle * PAGE + 3, 16 * MIB))?,
        &[8191, 8192],
    )?;
    space.start(&[range(0, 40 * MIB)])?;
    equal("what was not started", &space.report(range(0, 40 * MIB))?, &[])
}

fn before_start(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    for round in 0..2 {
        space.write_pages(&[7, 8])?;
        space.start(&[all])?;
        equal("what was written before", &space.report(all)?, &[])?;
        space.write_pages(&[8 + round])?;
        equal("what was written since", &space.report(all)?, &[8 + round])?;
        space.write_pages(&[20])?;
        space.tracker().stop()?;
    }
    Ok(())
}

fn late_mapping(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::small(Space::LEN)?, Leaves::Small)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    space.map(range(8 * MIB, MIB), Access::Write)?;
    space.write_pages(&[2050])?;
    match space.attached.dirty_control() {
        Some(DirtyControl::PerPte) => ensure!(space.report(all)?.contains(&2050)),
        _ => equal("a new mapping", &space.report(all)?, &[2050])?,
    }
    Ok(())
}

fn unmap_running(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::small(Space::LEN)?, Leaves::Small)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    let gone = range(MIB, 16 * PAGE);
    space.map(gone, Access::Write)?;
    space.write_pages(&[258])?;
    space.ioas.unmap(gone)?;
    equal(
        "what has gone",
        &space.report(all)?,
        &(256..272).collect::<Vec<_>>(),
    )?;
    if device.engine.kind == Kind::IommuTestdev {
        ensure!(
            device.engine.write(gone)? == Outcome::Refused,
            "the device writes what is unmapped"
        );
    }
    equal("what has gone, again", &space.report(all)?, &[])
}

fn unmap_quiesced(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::small(Space::LEN)?, Leaves::Small)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    let gone = range(MIB, 16 * PAGE);
    space.map(gone, Access::Write)?;
    space.report(all)?;
    space.write_pages(&[258])?;
    let _quiesced = space.attached.quiesce();
    space.ioas.unmap(gone)?;
    equal("what has gone", &space.report(all)?, &[258])
}

fn detach(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    space.write_pages(&[100, 9000])?;
    let space = space.reattach()?;
    space.write_pages(&[101])?;
    equal("both page tables", &space.report(all)?, &[100, 101, 9000])
}

fn read_only(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::small(Space::LEN)?, Leaves::Small)?;
    let all = range(0, Space::LEN);
    space.map(range(0, MIB), Access::Read)?;
    space.map(range(MIB, MIB), Access::Write)?;
    space.start(&[all])?;
    space.report(all)?;
    let outcome = device.engine.write(range(5 * PAGE, 4))?;
    ensure!(
        device.engine.kind == Kind::Edu || outcome == Outcome::Refused,
        "the device writes what it may only read"
    );
    space.write_pages(&[300])?;
    equal("what can be written", &space.report(all)?, &[300])?;
    space.ioas.unmap(range(0, MIB))?;
    equal("what could only be read", &space.report(all)?, &[])
}

fn large_pages(device: &Arc<Device>) -> Result<()> {
    let len = 8 * MIB;
    let space = Space::empty(device, Memory::large(len)?, Leaves::Large)?;
    let all = range(0, len);
    space.map(all, Access::Write)?;
    space.start(&[all])?;
    space.report(all)?;
    space.write_pages(&[3, 512 + 7])?;
    equal(
        "a part of a large page",
        &space.report(range(10 * PAGE, PAGE))?,
        &[10],
    )?;
    equal(
        "a part across two",
        &space.report(range(511 * PAGE, 2 * PAGE))?,
        &[511, 512],
    )?;
    let rest: Vec<u64> = (0..1024).filter(|page| ![10, 511, 512].contains(page)).collect();
    equal("the rest", &space.report(all)?, &rest)?;
    space.write_pages(&[1500])?;
    equal(
        "another large page",
        &space.report(all)?,
        &(1024..1536).collect::<Vec<_>>(),
    )
}
