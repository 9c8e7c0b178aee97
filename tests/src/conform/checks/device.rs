//! DEVICE_GET_INFO.

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Ask, parsed};
use crate::conform::check::{Check, Checked, Source};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::wire::{Command, DeviceInfo, consts};

const REPLY: Source = Source::Spec("VFIO_USER_DEVICE_GET_INFO, Reply");
const SIZES: Source = Source::Spec("Message sizes");

/// Regions of every PCI device: six BARs, ROM, config space, VGA (`VFIO_PCI_NUM_REGIONS`).
const PCI_REGIONS: u32 = 9;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "device/info-is-whole",
            REPLY,
            "The reply is the 16 bytes of its structure, and argsz says so.",
            whole,
        ),
        Check::new(
            "device/it-is-a-pci-device",
            REPLY,
            "This version of the protocol supports PCI devices only.",
            |probe| {
                let flags = info(&mut probe.ready()?, size_of::<DeviceInfo>() as u32)?.flags;
                expect::that(flags & consts::DEVICE_FLAGS_PCI != 0, || {
                    format!("the flags are {flags:#x}, without VFIO_DEVICE_FLAGS_PCI")
                })
            },
        ),
        Check::new(
            "device/it-has-the-regions-of-pci",
            Source::Spec("Device-Specific Regions"),
            "A PCI device has VFIO_PCI_NUM_REGIONS regions or more.",
            |probe| {
                let regions = info(&mut probe.ready()?, size_of::<DeviceInfo>() as u32)?.num_regions;
                expect::that(regions >= PCI_REGIONS, || format!("it has {regions} regions"))
            },
        ),
        Check::new(
            "device/more-room-changes-nothing",
            SIZES,
            "argsz is the most that the client takes; in the reply it is what is needed.",
            |probe| {
                let mut client = probe.ready()?;
                for argsz in [17, 4096, u32::MAX] {
                    let answer = info(&mut client, argsz)?;
                    expect::number("argsz of the reply", answer.argsz, size_of::<DeviceInfo>() as u64)?;
                }
                Ok(())
            },
        ),
        Check::new(
            "device/less-room-is-kept-to",
            SIZES,
            "A reply is never longer than argsz of its request: it is refused, or says what is needed.",
            little_room,
        ),
    ]
}

fn request(argsz: u32) -> DeviceInfo {
    DeviceInfo {
        argsz,
        ..DeviceInfo::default()
    }
}

fn info(client: &mut Client, argsz: u32) -> Checked<DeviceInfo> {
    let answer = client.ask(Command::DeviceGetInfo, request(argsz).as_bytes())?;
    parsed(&answer.done(&format!("GET_INFO with argsz {argsz}"))?)
}

fn whole(probe: &Probe<'_>) -> Checked {
    let size = size_of::<DeviceInfo>();
    let answer = probe
        .ready()?
        .ask(Command::DeviceGetInfo, request(size as u32).as_bytes())?;
    let reply = answer.done("GET_INFO")?;
    expect::number("the payload's length", reply.payload.len() as u64, size as u64)?;
    expect::number("argsz", parsed::<DeviceInfo>(&reply)?.argsz, size as u64)
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for argsz in [0, 4, 8, 15] {
        expect::within(
            argsz,
            &client.ask(Command::DeviceGetInfo, request(argsz).as_bytes())?,
        )?;
    }
    Ok(())
}
