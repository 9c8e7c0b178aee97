//! Several devices of one VM, each with its connection: START and STOP in every order.
//!
//! A page that one device wrote must be in a report of that device, or in one that another device of the VM was asked for
//! since. The specification knows no more of several devices than that each has its log: a server may hand a page over once
//! for all of them, or through the one that wrote it.

use std::collections::BTreeSet;

use crate::conform::check::{Check, Checked, Source};
use crate::conform::drive::{BUFFER, Driven, MEMORY};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::PAGE_SIZE as PAGE;
use crate::wire::MigState;

const SOCKET: Source = Source::Spec("Socket");
const LOG: Source = Source::Uapi("VFIO_DEVICE_FEATURE_DMA_LOGGING_START");
const UNMAP: Source = Source::Spec("VFIO_USER_DMA_UNMAP");
const STATE: Source = Source::Spec("VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE");

/// Pages of the buffer.
const PAGES: u64 = 64;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "several/each-device-is-served-by-its-socket",
            SOCKET,
            "Connections of several devices are served at the same time, whatever the order of their messages.",
            interleaved,
        ),
        Check::new(
            "several/each-writes-and-is-reported",
            LOG,
            "With every device logging, a page written by any of them is in one of the reports asked for afterwards.",
            each_is_reported,
        ),
        Check::new(
            "several/a-later-start-keeps-what-was-written",
            LOG,
            "A START of one device does not clear what another has written since its own.",
            later_start,
        ),
        Check::new(
            "several/starts-and-stops-in-every-order",
            LOG,
            "In whatever order devices start and stop to log, a page written by one while its log runs is reported.",
            every_order,
        ),
        Check::new(
            "several/a-stop-leaves-the-others-logs",
            LOG,
            "A STOP of one device ends its own log: the others go on to report.",
            one_stops,
        ),
        Check::new(
            "several/a-device-that-goes-leaves-the-others-logs",
            LOG,
            "The end of one connection ends its own log: the others go on to report.",
            one_goes,
        ),
        Check::new(
            "several/mappings-belong-to-a-connection",
            UNMAP,
            "Memory that is unmapped from one device can be written by another.",
            mappings,
        ),
        Check::new(
            "several/each-has-its-migration-state",
            STATE,
            "A migration state is that of one device.",
            states,
        ),
    ]
}

fn interleaved(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::two(probe)?;
    for round in 0..8 {
        for device in [0, 1, 1, 0] {
            driven.write(device, BUFFER + round * PAGE, 8)?;
            driven.client(device).device_info()?;
        }
    }
    Ok(())
}

/// Two devices that can be told to write; their logs are stopped.
fn two(probe: &Probe<'_>) -> Checked<Driven> {
    let mut driven = Driven::two(probe)?;
    needs::logging(driven.client(0))?;
    needs::logging(driven.client(1))?;
    Ok(driven)
}

fn start(driven: &mut Driven, device: usize) -> Checked {
    driven.start(device, &[(0, MEMORY)])
}

/// What the devices report, taken together.
fn union(driven: &mut Driven, devices: &[usize]) -> Checked<BTreeSet<u64>> {
    let mut pages = BTreeSet::new();
    for device in devices {
        pages.extend(driven.dirty(*device, BUFFER, PAGES * PAGE, PAGE)?);
    }
    Ok(pages)
}

fn is_in(pages: &BTreeSet<u64>, page: u64, what: &str) -> Checked {
    expect::that(pages.contains(&page), || {
        format!("{what}: {page:#x} was written, reported are {pages:x?}")
    })
}

fn each_is_reported(probe: &Probe<'_>) -> Checked {
    let mut driven = two(probe)?;
    start(&mut driven, 0)?;
    start(&mut driven, 1)?;
    for order in [[0, 1], [1, 0]] {
        driven.write(0, BUFFER, PAGE)?;
        driven.write(1, BUFFER + PAGE, PAGE)?;
        let pages = union(&mut driven, &order)?;
        is_in(&pages, BUFFER, "by the first device")?;
        is_in(&pages, BUFFER + PAGE, "by the second device")?;
        let again = union(&mut driven, &order)?;
        expect::equal("what is reported once more", &again, &BTreeSet::new())?;
    }
    Ok(())
}

fn later_start(probe: &Probe<'_>) -> Checked {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut driven = two(probe)?;
        start(&mut driven, first)?;
        driven.write(first, BUFFER, PAGE)?;
        start(&mut driven, second)?;
        let pages = union(&mut driven, &[0, 1])?;
        is_in(
            &pages,
            BUFFER,
            &format!("by device {first} before device {second} started"),
        )?;
    }
    Ok(())
}

/// What is done to a device's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start(usize),
    Stop(usize),
}

/// Every order of the four steps in which each device starts before it stops.
fn orders() -> Vec<[Step; 4]> {
    use Step::{Start, Stop};
    let mut orders = Vec::new();
    for (a, b) in [(0, 1), (1, 0)] {
        orders.push([Start(a), Stop(a), Start(b), Stop(b)]);
        orders.push([Start(a), Start(b), Stop(a), Stop(b)]);
        orders.push([Start(a), Start(b), Stop(b), Stop(a)]);
    }
    orders
}

fn every_order(probe: &Probe<'_>) -> Checked {
    let mut driven = two(probe)?;
    for order in orders() {
        let mut logging = [false; 2];
        for step in order {
            match step {
                Step::Start(device) => start(&mut driven, device)?,
                Step::Stop(device) => driven.client(device).logging_stop()?,
            }
            match step {
                Step::Start(device) => logging[device] = true,
                Step::Stop(device) => logging[device] = false,
            }
            let what = format!("after {step:?} of {order:?}");
            those_that_log_are_reported(&mut driven, logging, &what)?;
        }
    }
    Ok(())
}

/// Each device that logs writes a page; their reports must have it.
fn those_that_log_are_reported(driven: &mut Driven, logging: [bool; 2], what: &str) -> Checked {
    let those: Vec<usize> = (0..2).filter(|device| logging[*device]).collect();
    for device in &those {
        driven.write(*device, BUFFER + *device as u64 * PAGE, PAGE)?;
    }
    let pages = union(driven, &those)?;
    those
        .iter()
        .try_for_each(|device| is_in(&pages, BUFFER + *device as u64 * PAGE, what))
}

fn one_stops(probe: &Probe<'_>) -> Checked {
    for (stops, goes_on) in [(0, 1), (1, 0)] {
        let mut driven = two(probe)?;
        start(&mut driven, 0)?;
        start(&mut driven, 1)?;
        driven.write(goes_on, BUFFER, PAGE)?;
        driven.client(stops).logging_stop()?;
        driven.write(goes_on, BUFFER + PAGE, PAGE)?;
        let pages = union(&mut driven, &[goes_on])?;
        is_in(&pages, BUFFER, "before the other's STOP")?;
        is_in(&pages, BUFFER + PAGE, "after the other's STOP")?;
    }
    Ok(())
}

fn one_goes(probe: &Probe<'_>) -> Checked {
    let mut driven = two(probe)?;
    start(&mut driven, 0)?;
    start(&mut driven, 1)?;
    driven.write(0, BUFFER, PAGE)?;
    driven.client(1).connection().shut_down();
    driven.write(0, BUFFER + PAGE, PAGE)?;
    let pages = union(&mut driven, &[0])?;
    is_in(&pages, BUFFER, "before the other has gone")?;
    is_in(&pages, BUFFER + PAGE, "after the other has gone")
}

fn mappings(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::two(probe)?;
    let region = driven.vm().memory().find(BUFFER, 1)?;
    driven.client(0).dma_unmap(region.iova(), region.size())?;
    driven.write(1, BUFFER, PAGE)?;
    region.map_into(driven.client(0))?;
    driven.client(1).dma_unmap(region.iova(), region.size())?;
    driven.write(0, BUFFER, PAGE)
}

fn states(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::two(probe)?;
    needs::migration(driven.client(0))?;
    needs::migration(driven.client(1))?;
    for (stops, goes_on) in [(0, 1), (1, 0)] {
        driven.client(stops).set_mig_state(MigState::Stop)?;
        let other = driven.client(goes_on).mig_state()?;
        expect::equal(
            "the state of the device that was not told",
            &other,
            &MigState::Running,
        )?;
        driven.client(stops).set_mig_state(MigState::Running)?;
    }
    Ok(())
}
