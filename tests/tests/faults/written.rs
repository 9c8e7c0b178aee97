//! What is reported, by one device, by several, and while they write.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, MigState, consts};

use super::logging::{BITMAP, iova, length, page_size, reports};
use super::states::{asked_for, says_stop, sets_state};
use super::{Control, control, echo, u32_at, u64_at};
use crate::proxy::Rule;

use Command::{DeviceFeature as Feature, DmaUnmap, RegionWrite};

/// Where the checks' devices write.
const BUFFER: u64 = 48 << 20;
/// Where their generators write.
const WINDOWS: u64 = 16 << 20;
const PAGE: u64 = 4096;

/// Clears these bits of the first eight of each report.
fn clears(bits: u8) -> Rule {
    Rule::edits(Feature, reports, move |_, reply| {
        if let Some(byte) = reply.payload.get_mut(BITMAP) {
            *byte &= !bits;
        }
    })
}

/// Sets the first bit of each report.
fn sets_the_first() -> Rule {
    Rule::edits(Feature, reports, |_, reply| {
        if let Some(byte) = reply.payload.get_mut(BITMAP) {
            *byte |= 1;
        }
    })
}

/// Clears every bit of the reports that are so.
fn forgets(when: fn(&Message) -> bool) -> Rule {
    Rule::edits(Feature, when, |_, reply| {
        if let Some(bitmap) = reply.payload.get_mut(BITMAP..) {
            bitmap.fill(0);
        }
    })
}

/// Never reports the first pages of the generators' windows.
fn hides_pages() -> Rule {
    Rule::edits(Feature, reports, |request, reply| {
        for page in (WINDOWS..WINDOWS + 64 * PAGE).step_by(PAGE as usize) {
            let Some(bit) = page
                .checked_sub(iova(request))
                .map(|offset| offset / page_size(request))
            else {
                continue;
            };
            if let Some(byte) = reply.payload.get_mut(BITMAP + (bit / 8) as usize) {
                *byte &= !(1 << (bit % 8));
            }
        }
    })
}

fn is_doorbell(message: &Message) -> bool {
    u32_at(message, 8) == 0 && u64_at(message, 0) == 0x1000
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = one();
    controls.extend(several());
    controls.extend(concurrent());
    controls
}

fn one() -> Vec<Control> {
    vec![
        control("written/a-page-is-reported-once", || clears(1 << 1)),
        control("written/every-write-is-reported", || {
            forgets(|m| reports(m) && iova(m) < BUFFER)
        }),
        control("written/what-is-read-is-not-reported", sets_the_first),
        control("written/a-part-is-reported-without-the-rest", || {
            forgets(|m| reports(m) && length(m) == 10 * PAGE)
        }),
        control("written/page-sizes-convert-without-loss", || {
            forgets(|m| reports(m) && page_size(m) == 1 << 16)
        }),
        control("written/a-range-may-have-holes", || {
            forgets(|m| reports(m) && iova(m) == 0x9_0000)
        }),
        control("written/several-ranges-are-logged", || {
            forgets(|m| reports(m) && iova(m) == BUFFER + 8 * PAGE)
        }),
        control("written/an-unmap-keeps-what-was-written", || forgets(reports)),
        control("written/a-new-map-keeps-what-was-written", || clears(1)),
        control("written/memory-mapped-while-logging-is-logged", || {
            forgets(reports)
        }),
        control("written/an-unmap-hands-its-bitmap-over", || {
            Rule::edits(
                DmaUnmap,
                |m| u32_at(m, 4) & consts::DMA_UNMAP_GET_DIRTY_BITMAP != 0,
                |_, reply| {
                    reply.payload[40..].fill(0);
                },
            )
        }),
        control("written/a-new-start-begins-clean", sets_the_first),
        control("written/the-page-size-hinted-loses-nothing", || clears(1)),
    ]
}

fn several() -> Vec<Control> {
    vec![
        control("several/each-device-is-served-by-its-socket", || {
            Rule::closes(RegionWrite, |m| is_doorbell(m) && u32_at(m, 16) > 2)
        }),
        control("several/each-writes-and-is-reported", || clears(1 << 1)),
        control("several/a-later-start-keeps-what-was-written", || clears(1)),
        control("several/starts-and-stops-in-every-order", || clears(1 << 1)),
        control("several/a-stop-leaves-the-others-logs", || clears(1 << 1)),
        control("several/a-device-that-goes-leaves-the-others-logs", || {
            clears(1 << 1)
        }),
        control("several/mappings-belong-to-a-connection", || {
            Rule::refuses(RegionWrite, is_doorbell, consts::EFAULT)
        }),
        control("several/each-has-its-migration-state", says_stop),
    ]
}

fn concurrent() -> Vec<Control> {
    vec![
        control("concurrent/no-write-is-lost", hides_pages),
        control("concurrent/no-write-is-lost-in-large-pages", hides_pages),
        control("concurrent/no-write-of-several-devices-is-lost", hides_pages),
        control("concurrent/a-stopped-device-writes-nothing", || {
            let stops = |m: &Message| sets_state(m) && asked_for(m) == MigState::Stop as u32;
            Rule::pretends(Feature, stops, echo)
        }),
    ]
}
