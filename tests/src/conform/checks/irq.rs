//! DEVICE_GET_IRQ_INFO.

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::wire::{Command, IrqInfo, consts};

const REPLY: Source = Source::Spec("VFIO_USER_DEVICE_GET_IRQ_INFO, Reply");
const SIZES: Source = Source::Spec("Message sizes");

const SIZE: u32 = size_of::<IrqInfo>() as u32;

/// Every flag there is.
const FLAGS: u32 = consts::IRQ_INFO_EVENTFD
    | consts::IRQ_INFO_MASKABLE
    | consts::IRQ_INFO_AUTOMASKED
    | consts::IRQ_INFO_NORESIZE;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "irq/every-index-is-described",
            REPLY,
            "Each index below num_irqs is answered for, with its own index, argsz 16 and flags that exist.",
            every_index,
        ),
        Check::new(
            "irq/unknown-indexes-are-refused",
            Source::Kernel("vfio_pci_ioctl_get_irq_info()"),
            "An index that the device does not have is not described.",
            unknown,
        ),
        Check::new(
            "irq/vectors-are-as-many-as-pci-has",
            Source::Uapi("VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX"),
            "INTx has one vector or none, MSI at most 32 and MSI-X at most 2048.",
            counts,
        ),
        Check::new(
            "irq/less-room-is-kept-to",
            SIZES,
            "A reply is never longer than argsz of its request.",
            little_room,
        ),
    ]
}

fn ask(client: &mut Client, index: u32, argsz: u32) -> Checked<Answer> {
    let request = IrqInfo {
        argsz,
        index,
        ..IrqInfo::default()
    };
    client.ask(Command::DeviceGetIrqInfo, request.as_bytes())
}

fn describe(client: &mut Client, index: u32) -> Checked<IrqInfo> {
    let reply = ask(client, index, SIZE)?.done(&format!("GET_IRQ_INFO of index {index}"))?;
    expect::number("the payload's length", reply.payload.len() as u64, SIZE)?;
    parsed(&reply)
}

fn every_index(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::interrupts(&mut client)? {
        let info = describe(&mut client, index)?;
        expect::number("the index", info.index, index)?;
        expect::number("argsz", info.argsz, SIZE)?;
        expect::number(
            &format!("flags that do not exist, of index {index}"),
            info.flags & !FLAGS,
            0_u64,
        )?;
    }
    Ok(())
}

fn unknown(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let indexes = needs::interrupts(&mut client)?;
    for index in [indexes, indexes + 1, u32::MAX] {
        ask(&mut client, index, SIZE)?.refused(&format!("GET_IRQ_INFO of index {index}"))?;
    }
    Ok(())
}

fn counts(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let indexes = needs::interrupts(&mut client)?;
    for (index, most) in [
        (consts::IRQ_INTX, 1),
        (consts::IRQ_MSI, 32),
        (consts::IRQ_MSIX, 2048),
    ] {
        if index >= indexes {
            continue;
        }
        let count = describe(&mut client, index)?.count;
        expect::that(count <= most, || format!("index {index} has {count} vectors"))?;
    }
    Ok(())
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for argsz in [0, 4, 12, 15] {
        expect::within(argsz, &ask(&mut client, consts::IRQ_INTX, argsz)?)?;
    }
    Ok(())
}
