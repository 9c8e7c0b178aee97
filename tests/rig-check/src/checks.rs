//! The checks.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pagetrail_rig_devices::race::Goal;
use pagetrail_rig_devices::{Landing, MIB, PAGE, Reads, equal, some_pages};
use pagetrail_tracker::{Access, DirtyControl, DirtyTracker, KernelIoas, Leaves, PageSize, conformance};

use crate::device::Device;
use crate::memory::Memory;
use crate::race;
use crate::space::{Outcome, Space, SuiteRig, map, outcome_of_write, range};

/// The library's own suite has a device write about so often.
const SUITE_WRITES: u64 = 2000;

/// A promise, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) run: Box<dyn Fn() -> Result<()>>,
}

/// The checks of one device, with at most so many writes in each race.
pub(crate) fn of_device(device: &Arc<Device>, race_writes: u64) -> Vec<Check> {
    let check = |name: &str, run: fn(&Arc<Device>) -> Result<()>| {
        let device = device.clone();
        Check {
            name: format!("{}: {name}", device.kind),
            run: Box::new(move || run(&device)),
        }
    };
    let limits = device.limits();
    let goal = Goal {
        writes: limits.race.writes.min(race_writes),
        ..limits.race
    };
    let race = |name: &str, run: fn(&Arc<Device>, Goal) -> Result<()>| {
        let device = device.clone();
        Check {
            name: format!("{}: {name}", device.kind),
            run: Box::new(move || run(&device, goal)),
        }
    };
    let mut checks = vec![
        check("exactly the pages written are reported, once", exact_sets),
        check("what is looked at without clearing stays due", peeks),
        check("a report of a part leaves the rest due", parts),
        check("a page written before the start is not reported", before_start),
        check("memory mapped while tracking runs is tracked", late_mapping),
        check("a device attached while tracking runs is tracked", late_device),
        check("what is mapped beyond a hole is due, too", holes),
        check(
            "what is unmapped under a running device is due as a whole",
            unmap_running,
        ),
        check(
            "what is unmapped under a quiesced device is as due as it was written",
            unmap_quiesced,
        ),
        check("what a device wrote is due after it was detached", detach),
        check(
            "what devices may only read they do not write, and it is never due",
            read_only,
        ),
        check(
            "of a large page all is due, and a part read leaves the rest",
            large_pages,
        ),
        race("no page is lost between writes and reads", race::reads),
    ];
    if limits.race.writes >= SUITE_WRITES {
        checks.push(check("every promise of the suite is kept", |device| {
            suite(device);
            Ok(())
        }));
    }
    if limits.reads == Reads::Yes {
        checks.push(check(
            "a page that is read is not due, and is once it is written",
            reads_then_writes,
        ));
    }
    if limits.landing == Landing::AtOnce {
        checks.push(race(
            "no page is lost between writes, reads and unmaps",
            race::unmaps,
        ));
    }
    checks
}

/// The checks of several devices together.
pub(crate) fn of_devices(devices: &[Arc<Device>]) -> Vec<Check> {
    if devices.len() < 2 {
        return Vec::new();
    }
    let devices = devices.to_vec();
    vec![Check {
        name: "all devices: what any of them wrote is due, once".to_owned(),
        run: Box::new(move || united(&devices)),
    }]
}

/// The library's own suite, which panics where a promise is broken.
fn suite(device: &Arc<Device>) {
    conformance::check_all(|| SuiteRig(Space::small(device).expect("an address space")));
}

fn exact_sets(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    equal("nothing written", &space.report(all)?, &[])?;
    for _ in 0..2 {
        let pages = some_pages(device.limits().pages, Space::LEN / PAGE);
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
        &space.report(range(middle * PAGE, 16 * MIB))?,
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

fn late_device(device: &Arc<Device>) -> Result<()> {
    let ioas = KernelIoas::new(device.iommufd.clone(), Leaves::Small)?;
    let (memory, all) = (Memory::small(MIB)?, range(0, MIB));
    map(&ioas, &memory, all, Access::Write)?;
    ioas.tracker().start(&[all], PageSize::SIZE_4K)?;
    let space = Space::join(ioas, device, memory)?;
    space.write_pages(&[9, 200])?;
    equal("a new device", &space.report(all)?, &[9, 200])
}

/// The kernel's own reports end at a hole.
fn holes(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::small(Space::LEN)?, Leaves::Small)?;
    let all = range(0, Space::LEN);
    space.map(range(0, MIB), Access::Write)?;
    space.map(range(8 * MIB, MIB), Access::Write)?;
    space.start(&[all])?;
    space.report(all)?;
    space.write_pages(&[7, 2050])?;
    equal("around a hole", &space.report(all)?, &[7, 2050])
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
    ensure!(
        space.try_write(gone)? == Outcome::Refused,
        "the device writes what is unmapped"
    );
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
    let _quiesced = space.quiesce();
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
    ensure!(
        space.try_write(range(5 * PAGE, 4))? == Outcome::Refused,
        "the device writes what it may only read"
    );
    space.write_pages(&[300])?;
    equal("what can be written", &space.report(all)?, &[300])?;
    space.ioas.unmap(range(0, MIB))?;
    equal("what could only be read", &space.report(all)?, &[])
}

/// The IOMMU has the page cached as one that was not written when the device writes it.
fn reads_then_writes(device: &Arc<Device>) -> Result<()> {
    let space = Space::small(device)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    for _ in 0..2 {
        for page in [30, 31] {
            device.read(range(page * PAGE, PAGE))?;
        }
        equal("two pages read", &space.peek(all)?, &[])?;
        space.write_pages(&[31])?;
        equal("one of them written", &space.report(all)?, &[31])?;
    }
    Ok(())
}

/// The IOMMU may make one page of large ones that follow one another, in memory and in one mapping.
fn large_pages(device: &Arc<Device>) -> Result<()> {
    let space = Space::empty(device, Memory::large(8 * MIB)?, Leaves::Large)?;
    let all = range(0, 8 * MIB);
    for mapping in [
        range(0, 2 * MIB),
        range(2 * MIB, 2 * MIB),
        range(4 * MIB, 4 * MIB),
    ] {
        space.map(mapping, Access::Write)?;
    }
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
    space.write_pages(&[1700])?;
    let part = space.report(range(1600 * PAGE, PAGE))?;
    equal("a part of a large page in a mapping of several", &part, &[1600])?;
    let rest = space.report(all)?;
    let is_whole = (1536..2048).all(|page| page == 1600 || rest.contains(&page));
    let is_inside = rest
        .iter()
        .all(|page| (1024..2048).contains(page) && *page != 1600);
    ensure!(is_whole && is_inside, "of another large page {rest:?} are due");
    Ok(())
}

fn united(devices: &[Arc<Device>]) -> Result<()> {
    let (first, others) = devices.split_first().expect("several devices");
    let space = Space::small(first)?;
    let all = range(0, Space::LEN);
    space.start(&[all])?;
    // While tracking runs, so that what follows holds for devices that come late, too.
    let mut attached = Vec::new();
    for device in others {
        attached.push(device.join(&space.ioas)?);
    }
    for _ in 0..2 {
        let mut expected = BTreeSet::new();
        for (number, device) in (0..).zip(devices) {
            // One of its own, and one for all of them.
            for page in [100 + number, 50] {
                let outcome = outcome_of_write(device, &space.memory, range(page * PAGE, 4))?;
                let name = device.kind;
                ensure!(outcome == Outcome::Written, "the IOMMU stopped a write of {name}");
                expected.insert(page);
            }
        }
        let expected: Vec<u64> = expected.into_iter().collect();
        equal("all devices", &space.report(all)?, &expected)?;
        equal("the next report", &space.report(all)?, &[])?;
    }
    Ok(())
}
