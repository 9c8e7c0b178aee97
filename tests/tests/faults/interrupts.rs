//! DEVICE_GET_IRQ_INFO and DEVICE_SET_IRQS.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, consts};

use super::{Control, asked, control, nothing, put, u32_at};
use crate::proxy::Rule;

use Command::{DeviceGetIrqInfo as Info, DeviceSetIrqs as Set};

const DATA: u32 = consts::IRQ_SET_DATA_NONE | consts::IRQ_SET_DATA_BOOL | consts::IRQ_SET_DATA_EVENTFD;
const ACTION: u32 =
    consts::IRQ_SET_ACTION_MASK | consts::IRQ_SET_ACTION_UNMASK | consts::IRQ_SET_ACTION_TRIGGER;

fn flags(message: &Message) -> u32 {
    u32_at(message, 4)
}

fn index(message: &Message) -> u32 {
    u32_at(message, 8)
}

fn count(message: &Message) -> u32 {
    u32_at(message, 16)
}

fn is_trigger(message: &Message) -> bool {
    flags(message) == consts::IRQ_SET_DATA_NONE | consts::IRQ_SET_ACTION_TRIGGER && count(message) > 0
}

fn connects(message: &Message) -> bool {
    flags(message) & consts::IRQ_SET_DATA_EVENTFD != 0
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = info();
    controls.extend(good_requests());
    controls.extend(bad_requests());
    controls
}

fn info() -> Vec<Control> {
    vec![
        control("irq/every-index-is-described", || {
            Rule::edits(
                Info,
                |m| asked(m) && index(m) == 2,
                |_, reply| put(reply, 4, &[0x80]),
            )
        }),
        control("irq/unknown-indexes-are-refused", || {
            Rule::pretends(Info, |m| index(m) > 4, |_| vec![0; 16])
        }),
        control("irq/vectors-are-as-many-as-pci-has", || {
            Rule::edits(
                Info,
                |m| asked(m) && index(m) == 0,
                |_, reply| put(reply, 12, &[2]),
            )
        }),
        control("irq/less-room-is-kept-to", || {
            Rule::pretends(Info, |m| u32_at(m, 0) < 16, |_| vec![0; 16])
        }),
    ]
}

fn good_requests() -> Vec<Control> {
    vec![
        control("set-irqs/an-eventfd-is-signalled-by-a-trigger", || {
            Rule::pretends(Set, is_trigger, nothing)
        }),
        control("set-irqs/booleans-choose-the-vectors", || {
            let takes_all = |message: &mut Message| {
                message.payload.truncate(20);
                put(message, 0, &20_u32.to_le_bytes());
                let flags = consts::IRQ_SET_DATA_NONE | consts::IRQ_SET_ACTION_TRIGGER;
                put(message, 4, &flags.to_le_bytes());
            };
            Rule::changes(Set, |m| flags(m) & consts::IRQ_SET_DATA_BOOL != 0, takes_all)
        }),
        control("set-irqs/an-eventfd-is-replaced", || {
            Rule::pretends(Set, |m| connects(m) && count(m) == 1, nothing)
        }),
        control("set-irqs/no-eventfd-takes-the-former-away", || {
            Rule::pretends(Set, |m| connects(m) && m.fds.is_empty(), nothing)
        }),
        control("set-irqs/a-count-of-0-disables-the-index", || {
            Rule::pretends(Set, |m| count(m) == 0, nothing)
        }),
        control("set-irqs/every-combination-is-answered", || {
            let eventfd_on_mask = |m: &Message| connects(m) && flags(m) & consts::IRQ_SET_ACTION_MASK != 0;
            Rule::swallows(Set, eventfd_on_mask)
        }),
        control("set-irqs/maskable-vectors-are-masked-and-unmasked", || {
            Rule::refuses(
                Set,
                |m| flags(m) & consts::IRQ_SET_ACTION_MASK != 0,
                consts::ENOTTY,
            )
        }),
    ]
}

fn bad_requests() -> Vec<Control> {
    vec![
        control("set-irqs/unknown-indexes-are-refused", || {
            Rule::pretends(Set, |m| index(m) > 4, nothing)
        }),
        control("set-irqs/vectors-out-of-range-are-refused", || {
            Rule::grants(Set, |m| count(m) == u32::MAX, nothing)
        }),
        control("set-irqs/one-kind-of-data-at-a-time", || {
            Rule::grants(Set, |m| (flags(m) & DATA).count_ones() > 1, nothing)
        }),
        control("set-irqs/one-action-at-a-time", || {
            Rule::grants(Set, |m| (flags(m) & ACTION).count_ones() > 1, nothing)
        }),
        control("set-irqs/unknown-flags-are-refused", || {
            Rule::grants(Set, |m| flags(m) & !(DATA | ACTION) != 0, nothing)
        }),
        control("set-irqs/booleans-are-all-there", || {
            let has_too_few = |m: &Message| (m.payload.len() - 20) < count(m) as usize;
            Rule::grants(Set, has_too_few, nothing)
        }),
    ]
}
