//! DEVICE_RESET.

use std::os::fd::AsFd;

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::Ask;
use crate::conform::check::{Check, Checked, Source, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::{Backing, memory_file};
use crate::wire::{Command, DmaMap, MigState, consts};

const RESET: Source = Source::Spec("VFIO_USER_DEVICE_RESET");

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "reset/it-is-answered",
            RESET,
            "A device with VFIO_DEVICE_FLAGS_RESET is reset; the reply has no payload, and the device answers afterwards.",
            answered,
        ),
        Check::new(
            "reset/it-ends-in-running",
            Source::Uapi("enum vfio_device_mig_state"),
            "After a reset a device that migrates is in RUNNING, in whatever state it was.",
            ends_in_running,
        ),
        Check::new(
            "reset/it-keeps-mappings",
            Source::Spec("VFIO_USER_DMA_UNMAP"),
            "Memory is available for DMA until DMA_UNMAP says otherwise: a reset leaves it mapped.",
            keeps_mappings,
        ),
        Check::new(
            "reset/it-is-refused-where-it-is-not-announced",
            Source::Spec("VFIO_USER_DEVICE_GET_INFO, Reply"),
            "A device without VFIO_DEVICE_FLAGS_RESET refuses it.",
            refused,
        ),
    ]
}

fn can_reset(client: &mut Client) -> Checked<bool> {
    Ok(client.device_info()?.flags & consts::DEVICE_FLAGS_RESET != 0)
}

/// A client of a device that can be reset.
fn resettable(probe: &Probe<'_>) -> Checked<Client> {
    let mut client = probe.ready()?;
    if can_reset(&mut client)? {
        return Ok(client);
    }
    skip("the device has no reset (VFIO_DEVICE_FLAGS_RESET)")
}

fn answered(probe: &Probe<'_>) -> Checked {
    let mut client = resettable(probe)?;
    for _ in 0..2 {
        let reply = client.ask(Command::DeviceReset, &[])?.done("DEVICE_RESET")?;
        expect::number("the payload's length", reply.payload.len() as u64, 0_u64)?;
        client.device_info()?;
    }
    Ok(())
}

fn ends_in_running(probe: &Probe<'_>) -> Checked {
    let mut client = resettable(probe)?;
    let flags = needs::migration(&mut client)?;
    let mut states = vec![
        MigState::Running,
        MigState::Stop,
        MigState::StopCopy,
        MigState::Resuming,
    ];
    if flags & consts::MIGRATION_P2P != 0 {
        states.push(MigState::RunningP2p);
    }
    if flags & consts::MIGRATION_PRE_COPY != 0 {
        states.push(MigState::PreCopy);
    }
    for state in states {
        client.set_mig_state(state)?;
        client
            .ask(Command::DeviceReset, &[])?
            .done(&format!("DEVICE_RESET in {state}"))?;
        expect::equal(
            &format!("the state after a reset in {state}"),
            &client.mig_state()?,
            &MigState::Running,
        )?;
    }
    Ok(())
}

fn keeps_mappings(probe: &Probe<'_>) -> Checked {
    let mut client = resettable(probe)?;
    let file = memory_file(1 << 16, Backing::Sealed)?;
    let map = DmaMap {
        argsz: size_of::<DmaMap>() as u32,
        flags: consts::DMA_MAP_READ | consts::DMA_MAP_WRITE,
        offset: 0,
        address: 1 << 32,
        size: 1 << 16,
    };
    let fd = [file.as_fd()];
    client
        .ask_with(Command::DmaMap, map.as_bytes(), &fd)?
        .done("a map")?;
    client.device_reset()?;
    let inside = DmaMap {
        address: map.address + 4096,
        size: 4096,
        ..map
    };
    let again = client.ask_with(Command::DmaMap, inside.as_bytes(), &fd)?;
    again
        .refused("after a reset, a map into what was mapped before")
        .map(drop)
}

fn refused(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    if can_reset(&mut client)? {
        return skip("the device has a reset");
    }
    client
        .ask(Command::DeviceReset, &[])?
        .refused("DEVICE_RESET")
        .map(drop)
}
