//! The migration states: every way from one to another, and those that must not be.

mod arcs;

use std::os::fd::AsFd;

use arcs::{Path, is_offered, path};

use super::stream::{read_to_end, write};
use crate::client::{Client, Error};
use crate::conform::ask::errno_text;
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::{Backing, memory_file};
use crate::wire::{DmaMap, MigState, consts};

const SPEC: Source = Source::Spec("Direct State Transitions");
const COMPLEX: Source = Source::Spec("Complex State Transitions");
const UAPI: Source = Source::Uapi("enum vfio_device_mig_state");
const KERNEL: Source = Source::Kernel("vfio_mig_get_next_state()");

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![
        Check::new(
            "states/a-device-begins-in-running",
            SPEC,
            "A device that was not told otherwise is in RUNNING.",
            |probe| {
                let mut client = migrating(probe, MigState::Running)?;
                is_in(&mut client, MigState::Running, "at the beginning")
            },
        ),
        Check::new(
            "states/unknown-numbers-are-refused",
            SPEC,
            "A state that does not exist is refused, and changes nothing.",
            |probe| {
                refused_numbers(
                    &mut migrating(probe, MigState::Running)?,
                    &[8, 9, 0x100, u32::MAX],
                )
            },
        ),
        Check::new(
            "states/error-cannot-be-asked-for",
            SPEC,
            "ERROR is no state to be asked for.",
            |probe| {
                refused_numbers(
                    &mut migrating(probe, MigState::Running)?,
                    &[MigState::Error as u32],
                )
            },
        ),
        Check::new(
            "states/what-is-not-announced-is-refused",
            UAPI,
            "The optional states are refused where VFIO_DEVICE_FEATURE_MIGRATION does not announce them.",
            not_announced,
        ),
        Check::new(
            "states/a-stopped-device-can-be-set-up",
            UAPI,
            "In STOP and STOP_COPY a device takes accesses to configuration space, memory and interrupts.",
            stopped_is_set_up,
        ),
    ];
    let asked = || {
        MigState::ALL
            .into_iter()
            .filter(|state| *state != MigState::Error)
    };
    for from in asked() {
        checks.extend(asked().map(|to| arc(from, to)));
    }
    checks
}

fn is_p2p(state: MigState) -> bool {
    matches!(state, MigState::RunningP2p | MigState::PreCopyP2p)
}

/// A state as it is written in a check's name.
fn written(state: MigState) -> String {
    state.to_string().to_lowercase().replace('_', "-")
}

/// The check of the way between two states.
fn arc(from: MigState, to: MigState) -> Check {
    // The specification has no P2P states: what it says of the others is told without them.
    let of_the_kernel = is_p2p(from) || is_p2p(to);
    let flags = if of_the_kernel {
        consts::MIGRATION_P2P | consts::MIGRATION_PRE_COPY
    } else {
        consts::MIGRATION_PRE_COPY
    };
    let way = path(from, to, flags);
    let (name, source, about) = match &way {
        Path::Stay => (
            format!("states/{}-stays", written(from)),
            KERNEL,
            format!("{from}, asked for in {from}, is granted and changes nothing."),
        ),
        Path::Forbidden => (
            format!("states/{}-to-{}-is-refused", written(from), written(to)),
            if of_the_kernel { KERNEL } else { SPEC },
            format!("There is no way from {from} to {to}: it is refused, and the device stays."),
        ),
        Path::By(states) => (
            format!("states/{}-to-{}", written(from), written(to)),
            match states.len() {
                _ if of_the_kernel => UAPI,
                1 => SPEC,
                _ => COMPLEX,
            },
            format!("{from} leads to {to}{}.", by(states)),
        ),
    };
    Check::new(name, source, about, move |probe| try_arc(probe, from, to))
}

/// The states between, in words.
fn by(states: &[MigState]) -> String {
    let Some((_, between)) = states.split_last().filter(|(_, between)| !between.is_empty()) else {
        return String::new();
    };
    let names: Vec<String> = between.iter().map(ToString::to_string).collect();
    format!(", by way of {}", names.join(", "))
}

/// A client of a device that migrates and has this state.
fn migrating(probe: &Probe<'_>, state: MigState) -> Checked<Client> {
    let mut client = probe.ready()?;
    let flags = needs::migration(&mut client)?;
    if is_offered(state, flags) {
        return Ok(client);
    }
    skip(format!("the device has no {state}"))
}

fn is_in(client: &mut Client, state: MigState, when: &str) -> Checked {
    let got = client.mig_state()?;
    expect::that(got == state, || {
        format!("{when} the device is in {got}, not in {state}")
    })
}

fn set(client: &mut Client, from: MigState, to: MigState) -> Checked {
    match client.set_mig_state(to) {
        Ok(()) => is_in(client, to, &format!("after {from} to {to}")),
        Err(Error::Server { errno, .. }) => {
            fail(format!("{from} to {to} is refused with {}", errno_text(errno)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Brings a device that runs to `state`; in RESUMING it is given a state of its own, since it could not be left without one.
fn bring(client: &mut Client, state: MigState) -> Checked {
    if state == MigState::Running {
        return Ok(());
    }
    if state != MigState::Resuming {
        return set(client, MigState::Running, state);
    }
    set(client, MigState::Running, MigState::StopCopy)?;
    let stream = read_to_end(client, 1 << 16)?;
    set(client, MigState::StopCopy, MigState::Resuming)?;
    write(client, &stream, 1 << 16)
}

fn try_arc(probe: &Probe<'_>, from: MigState, to: MigState) -> Checked {
    let mut client = migrating(probe, from)?;
    let flags = needs::migration(&mut client)?;
    if !is_offered(to, flags) {
        return skip(format!("the device has no {to}"));
    }
    bring(&mut client, from)?;
    if !matches!(path(from, to, flags), Path::Forbidden) {
        return set(&mut client, from, to);
    }
    match client.set_mig_state(to) {
        Err(Error::Server { .. }) => {
            is_in(&mut client, from, &format!("after the refusal of {from} to {to}"))
        }
        Ok(()) => fail(format!("{from} to {to} is granted")),
        Err(error) => Err(error.into()),
    }
}

fn refused_numbers(client: &mut Client, numbers: &[u32]) -> Checked {
    for number in numbers {
        match client.set_mig_state_raw(*number) {
            Err(Error::Server { .. }) => is_in(client, MigState::Running, &format!("after state {number}"))?,
            Ok(_) => return fail(format!("state {number} is granted")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn not_announced(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe, MigState::Running)?;
    let flags = needs::migration(&mut client)?;
    let missing: Vec<u32> = MigState::ALL
        .into_iter()
        .filter(|state| *state != MigState::Error && !is_offered(*state, flags))
        .map(|state| state as u32)
        .collect();
    if missing.is_empty() {
        return skip("the device has every optional state");
    }
    refused_numbers(&mut client, &missing)
}

fn stopped_is_set_up(probe: &Probe<'_>) -> Checked {
    let file = memory_file(1 << 16, Backing::Sealed)?;
    for state in [MigState::Stop, MigState::StopCopy] {
        let mut client = migrating(probe, state)?;
        bring(&mut client, state)?;
        let map = DmaMap {
            flags: consts::DMA_MAP_READ | consts::DMA_MAP_WRITE,
            address: 1 << 32,
            size: 1 << 16,
            ..DmaMap::default()
        };
        let mut id = [0; 4];
        client.region_read(consts::REGION_CONFIG, 0, &mut id)?;
        client.region_write(consts::REGION_CONFIG, 0x3c, &[1])?;
        client.dma_map(map, Some(file.as_fd()))?;
        client.dma_unmap(map.address, map.size)?;
        is_in(&mut client, state, "after that")?;
    }
    Ok(())
}
