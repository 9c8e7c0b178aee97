//! DEVICE_SET_IRQS: every action with every kind of data, and what makes no sense.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Answer, Ask};
use crate::conform::check::{Check, Checked, Source, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::{Capability, ConfigSpace, Interrupts, IrqKind};
use crate::wire::{Command, IrqInfo, IrqSet, consts};

const REQUEST: Source = Source::Spec("VFIO_USER_DEVICE_SET_IRQS, Request");
const VALIDATION: Source = Source::Kernel("vfio_set_irqs_validate_and_prepare()");

const NONE: u32 = consts::IRQ_SET_DATA_NONE;
const BOOL: u32 = consts::IRQ_SET_DATA_BOOL;
const EVENTFD: u32 = consts::IRQ_SET_DATA_EVENTFD;
const MASK: u32 = consts::IRQ_SET_ACTION_MASK;
const UNMASK: u32 = consts::IRQ_SET_ACTION_UNMASK;
const TRIGGER: u32 = consts::IRQ_SET_ACTION_TRIGGER;

/// Vectors of an index that are tried.
const MOST: u32 = 4;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "set-irqs/an-eventfd-is-signalled-by-a-trigger",
            REQUEST,
            "A trigger with DATA_NONE signals each vector's eventfd of the range, and no other.",
            trigger_none,
        ),
        Check::new(
            "set-irqs/booleans-choose-the-vectors",
            REQUEST,
            "A trigger with DATA_BOOL signals the vectors whose boolean is true.",
            trigger_bool,
        ),
        Check::new(
            "set-irqs/an-eventfd-is-replaced",
            REQUEST,
            "A vector that is given another eventfd signals that one and the former no more.",
            replace,
        ),
        Check::new(
            "set-irqs/no-eventfd-takes-the-former-away",
            REQUEST,
            "DATA_EVENTFD without file descriptors de-assigns the vectors.",
            deassign,
        ),
        Check::new(
            "set-irqs/a-count-of-0-disables-the-index",
            REQUEST,
            "DATA_NONE with start and count 0 takes every eventfd of the index away.",
            disable,
        ),
        Check::new(
            "set-irqs/maskable-vectors-are-masked-and-unmasked",
            Source::Spec("VFIO_USER_DEVICE_GET_IRQ_INFO, Reply"),
            "An index with VFIO_IRQ_INFO_MASKABLE takes MASK and UNMASK, with DATA_NONE and with DATA_BOOL.",
            mask,
        ),
        Check::new(
            "set-irqs/every-combination-is-answered",
            REQUEST,
            "Not every interrupt takes every combination of data and action; each is answered, and the server goes on.",
            combinations,
        ),
        Check::new(
            "set-irqs/unknown-indexes-are-refused",
            VALIDATION,
            "An index that the device does not have is not set up.",
            unknown_index,
        ),
        Check::new(
            "set-irqs/vectors-out-of-range-are-refused",
            VALIDATION,
            "A range that begins or ends behind the index's vectors, or wraps around, is refused.",
            out_of_range,
        ),
        Check::new(
            "set-irqs/one-kind-of-data-at-a-time",
            REQUEST,
            "The DATA flags are mutually exclusive, and one of them is set.",
            data_flags,
        ),
        Check::new(
            "set-irqs/one-action-at-a-time",
            REQUEST,
            "The ACTION flags are mutually exclusive, and one of them is set.",
            action_flags,
        ),
        Check::new(
            "set-irqs/unknown-flags-are-refused",
            VALIDATION,
            "Flags that do not exist are refused.",
            unknown_flags,
        ),
        Check::new(
            "set-irqs/booleans-are-all-there",
            VALIDATION,
            "A request with fewer booleans than its count is refused.",
            missing_booleans,
        ),
    ]
}

/// A client, an interrupt index of its device that signals eventfds, and the eventfds of its first vectors, connected.
struct Connected {
    client: Client,
    info: IrqInfo,
    eventfds: Interrupts,
}

impl Connected {
    /// The first index that has vectors and signals eventfds: MSI-X, MSI, INTx.
    fn first(probe: &Probe<'_>) -> Checked<Self> {
        let kinds = usable(&mut probe.ready()?)?;
        match kinds.first() {
            Some(kind) => Self::new(probe, *kind),
            None => skip("no interrupt of the device can signal an eventfd"),
        }
    }

    /// Does something with each index that has vectors and signals eventfds, on a connection of its own.
    fn each(probe: &Probe<'_>, mut action: impl FnMut(Self) -> Checked) -> Checked {
        let kinds = usable(&mut probe.ready()?)?;
        if kinds.is_empty() {
            return skip("no interrupt of the device can signal an eventfd");
        }
        kinds
            .into_iter()
            .try_for_each(|kind| action(Self::new(probe, kind)?))
    }

    fn new(probe: &Probe<'_>, kind: IrqKind) -> Checked<Self> {
        let mut client = probe.ready()?;
        let info = client.irq_info(kind.index())?;
        // As a driver does: some devices have no vectors before.
        match kind {
            IrqKind::Intx => {}
            IrqKind::Msi => ConfigSpace(&mut client).enable_messages(Capability::Msi)?,
            IrqKind::Msix => ConfigSpace(&mut client).enable_messages(Capability::Msix)?,
        }
        let eventfds = Interrupts::new(kind, info.count.min(MOST))?;
        let mut connected = Self {
            client,
            info,
            eventfds,
        };
        let all = connected.eventfds.vectors();
        let fds = connected.eventfds.fds();
        set(
            &mut connected.client,
            EVENTFD | TRIGGER,
            info.index,
            (0, all),
            &[],
            &fds,
        )?
        .done(&format!("connecting eventfds to index {}", info.index))?;
        Ok(connected)
    }

    fn vectors(&self) -> u32 {
        self.eventfds.vectors()
    }

    fn set(&mut self, flags: u32, range: (u32, u32), data: &[u8]) -> Checked<Answer> {
        set(&mut self.client, flags, self.info.index, range, data, &[])
    }

    /// Which vectors were signalled since this was last asked. The reply to the trigger has come: nothing is awaited but what
    /// a server hands to another thread.
    fn signalled(&self, expected: &[u32]) -> Checked {
        for vector in expected {
            expect::that(self.eventfds.wait(*vector, Duration::from_secs(2)) > 0, || {
                format!("vector {vector} is not signalled")
            })?;
        }
        self.quiet(self.vectors())
    }

    /// Nothing was signalled below `vectors`.
    fn quiet(&self, vectors: u32) -> Checked {
        (0..vectors).try_for_each(|vector| {
            expect::that(self.eventfds.take(vector) == 0, || {
                format!("vector {vector} is signalled, and was not to be")
            })
        })
    }
}

/// The kinds of interrupt that have vectors and signal eventfds.
fn usable(client: &mut Client) -> Checked<Vec<IrqKind>> {
    let indexes = needs::interrupts(client)?;
    let mut kinds = Vec::new();
    for kind in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx] {
        if kind.index() >= indexes {
            continue;
        }
        let info = client.irq_info(kind.index())?;
        if info.count > 0 && info.flags & consts::IRQ_INFO_EVENTFD != 0 {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn set(
    client: &mut Client,
    flags: u32,
    index: u32,
    (start, count): (u32, u32),
    data: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Checked<Answer> {
    let request = IrqSet {
        argsz: (size_of::<IrqSet>() + data.len()) as u32,
        flags,
        index,
        start,
        count,
    };
    client.ask_with(Command::DeviceSetIrqs, &[request.as_bytes(), data].concat(), fds)
}

fn trigger_none(probe: &Probe<'_>) -> Checked {
    Connected::each(probe, |mut irqs| {
        for vector in 0..irqs.vectors() {
            irqs.set(NONE | TRIGGER, (vector, 1), &[])?.done("a trigger")?;
            irqs.signalled(&[vector])?;
        }
        let all: Vec<u32> = (0..irqs.vectors()).collect();
        irqs.set(NONE | TRIGGER, (0, irqs.vectors()), &[])?
            .done("a trigger of all")?;
        irqs.signalled(&all)
    })
}

fn trigger_bool(probe: &Probe<'_>) -> Checked {
    Connected::each(probe, |mut irqs| {
        let count = irqs.vectors();
        for chosen in 0..count {
            let booleans: Vec<u8> = (0..count).map(|vector| u8::from(vector == chosen)).collect();
            irqs.set(BOOL | TRIGGER, (0, count), &booleans)?
                .done("a trigger by booleans")?;
            irqs.signalled(&[chosen])?;
        }
        irqs.set(BOOL | TRIGGER, (0, count), &vec![0; count as usize])?
            .done("a trigger of none")?;
        irqs.signalled(&[])
    })
}

fn replace(probe: &Probe<'_>) -> Checked {
    Connected::each(probe, |mut irqs| {
        let other = Interrupts::new(irqs.eventfds.kind(), 1)?;
        set(
            &mut irqs.client,
            EVENTFD | TRIGGER,
            irqs.info.index,
            (0, 1),
            &[],
            &other.fds(),
        )?
        .done("another eventfd")?;
        irqs.set(NONE | TRIGGER, (0, 1), &[])?.done("a trigger")?;
        expect::that(other.wait(0, Duration::from_secs(2)) > 0, || {
            "the new eventfd is not signalled".to_owned()
        })?;
        irqs.signalled(&[])
    })
}

/// After this nothing is signalled; a trigger may be refused or do nothing.
fn nothing_is_signalled(irqs: &mut Connected) -> Checked {
    let all = irqs.vectors();
    irqs.set(NONE | TRIGGER, (0, all), &[])?;
    irqs.client.device_info()?;
    irqs.quiet(all)
}

fn deassign(probe: &Probe<'_>) -> Checked {
    Connected::each(probe, |mut irqs| {
        let all = irqs.vectors();
        irqs.set(EVENTFD | TRIGGER, (0, all), &[])?
            .done("DATA_EVENTFD without file descriptors")?;
        nothing_is_signalled(&mut irqs)
    })
}

fn disable(probe: &Probe<'_>) -> Checked {
    Connected::each(probe, |mut irqs| {
        irqs.set(NONE | TRIGGER, (0, 0), &[])?
            .done("DATA_NONE with start and count 0")?;
        nothing_is_signalled(&mut irqs)
    })
}

fn mask(probe: &Probe<'_>) -> Checked {
    let mut irqs = Connected::first(probe)?;
    if irqs.info.flags & consts::IRQ_INFO_MASKABLE == 0 {
        return skip(format!("interrupt index {} is not maskable", irqs.info.index));
    }
    for action in [MASK, UNMASK] {
        irqs.set(NONE | action, (0, 1), &[])?
            .done(&format!("action {action:#x} with DATA_NONE"))?;
        irqs.set(BOOL | action, (0, 1), &[1])?
            .done(&format!("action {action:#x} with DATA_BOOL"))?;
    }
    irqs.set(NONE | TRIGGER, (0, 1), &[])?
        .done("a trigger after UNMASK")?;
    irqs.signalled(&[0])
}

fn combinations(probe: &Probe<'_>) -> Checked {
    let indexes = needs::interrupts(&mut probe.ready()?)?;
    for index in 0..indexes {
        let mut client = probe.ready()?;
        for data in [NONE, BOOL, EVENTFD] {
            for action in [MASK, UNMASK, TRIGGER] {
                let eventfd = Interrupts::new(IrqKind::Intx, 1)?;
                let (booleans, fds) = match data {
                    BOOL => (vec![1], Vec::new()),
                    EVENTFD => (Vec::new(), eventfd.fds()),
                    _ => (Vec::new(), Vec::new()),
                };
                let answer = set(&mut client, data | action, index, (0, 1), &booleans, &fds)?;
                expect::that(!matches!(answer, Answer::Closed), || {
                    format!(
                        "flags {:#x} of index {index}: the server closed the connection",
                        data | action
                    )
                })?;
            }
        }
        client.device_info()?;
    }
    Ok(())
}

fn unknown_index(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let indexes = needs::interrupts(&mut client)?;
    for index in [indexes, indexes + 1, u32::MAX] {
        for flags in [NONE | TRIGGER, EVENTFD | TRIGGER] {
            set(&mut client, flags, index, (0, 1), &[], &[])?.refused(&format!("index {index}"))?;
        }
    }
    Ok(())
}

fn out_of_range(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::interrupts(&mut client)? {
        let count = client.irq_info(index)?.count;
        for range in [
            (count, 1),
            (0, count.saturating_add(1)),
            (count.saturating_add(1), 1),
            (u32::MAX, 2),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            for flags in [NONE | TRIGGER, NONE | MASK, EVENTFD | TRIGGER] {
                let what = format!(
                    "vectors {} + {} of index {index}, which has {count}",
                    range.0, range.1
                );
                set(&mut client, flags, index, range, &[], &[])?.refused(&what)?;
            }
        }
    }
    Ok(())
}

fn data_flags(probe: &Probe<'_>) -> Checked {
    let mut irqs = Connected::first(probe)?;
    for flags in [
        0,
        NONE | BOOL,
        NONE | EVENTFD,
        BOOL | EVENTFD,
        NONE | BOOL | EVENTFD,
    ] {
        irqs.set(flags | TRIGGER, (0, 1), &[1])?
            .refused(&format!("flags {:#x}", flags | TRIGGER))?;
    }
    Ok(())
}

fn action_flags(probe: &Probe<'_>) -> Checked {
    let mut irqs = Connected::first(probe)?;
    for flags in [
        0,
        MASK | UNMASK,
        MASK | TRIGGER,
        UNMASK | TRIGGER,
        MASK | UNMASK | TRIGGER,
    ] {
        irqs.set(flags | NONE, (0, 1), &[])?
            .refused(&format!("flags {:#x}", flags | NONE))?;
    }
    Ok(())
}

fn unknown_flags(probe: &Probe<'_>) -> Checked {
    let mut irqs = Connected::first(probe)?;
    for flag in [1 << 6, 1 << 16, 1 << 31] {
        irqs.set(flag | NONE | TRIGGER, (0, 1), &[])?
            .refused(&format!("flag {flag:#x}"))?;
    }
    Ok(())
}

fn missing_booleans(probe: &Probe<'_>) -> Checked {
    let mut irqs = Connected::first(probe)?;
    let all = irqs.vectors();
    for present in 0..all {
        irqs.set(BOOL | TRIGGER, (0, all), &vec![1; present as usize])?
            .refused(&format!("{present} booleans for {all} vectors"))?;
    }
    Ok(())
}
