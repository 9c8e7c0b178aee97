//! DMA_MAP and DMA_UNMAP.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, consts};

use super::{Control, asked, control, echo, nothing, put, u32_at, u64_at};
use crate::proxy::{Rule, always};

use Command::{DmaMap as Map, DmaUnmap as Unmap};

/// Where the checks map.
const BASE: u64 = 1 << 32;
/// Bytes of the checks' mappings.
const SIZE: u64 = 16 << 12;

/// The access modes that need a file.
const MODES: u32 = consts::DMA_MAP_MODE_MMAP | consts::DMA_MAP_MODE_FILE_IO;

fn flags(message: &Message) -> u32 {
    u32_at(message, 4)
}

fn address(message: &Message) -> u64 {
    u64_at(message, 16)
}

fn size(message: &Message) -> u64 {
    u64_at(message, 24)
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = maps();
    controls.extend(unmaps());
    controls
}

fn maps() -> Vec<Control> {
    vec![
        control("dma/memory-with-a-file-is-mapped", || {
            Rule::refuses(Map, |m| flags(m) & MODES != 0, consts::EINVAL)
        }),
        control("dma/memory-without-a-file-is-mapped", || {
            Rule::refuses(Map, |m| m.fds.is_empty(), consts::EINVAL)
        }),
        control("dma/an-access-mode-without-its-file-is-einval", || {
            Rule::says(Map, |m| flags(m) & MODES != 0, consts::EPERM)
        }),
        control("dma/a-map-over-another-is-eexist", || {
            Rule::says(Map, always, consts::EINVAL)
        }),
        control("dma/maps-may-touch", || {
            Rule::refuses(Map, |m| address(m) == BASE + SIZE, consts::EEXIST)
        }),
        control("dma/a-map-that-wraps-is-refused", || {
            Rule::grants(Map, |m| address(m).checked_add(size(m)).is_none(), nothing)
        }),
        control("dma/an-empty-map-is-refused", || {
            Rule::grants(Map, |m| size(m) == 0, nothing)
        }),
        control("dma/an-unaligned-map-is-refused", || {
            Rule::grants(Map, |m| !size(m).is_multiple_of(4096), nothing)
        }),
        control("dma/as-many-maps-as-announced-are-taken", || {
            Rule::refuses(Map, |m| address(m) > BASE + 3000 * SIZE, consts::ENOSPC)
        }),
    ]
}

fn unmaps() -> Vec<Control> {
    vec![
        control("dma/an-unmap-answers-with-its-region", || {
            Rule::edits(Unmap, asked, |_, reply| put(reply, 8, &[0; 8]))
        }),
        control("dma/an-unmap-names-a-mapping-exactly", || {
            Rule::grants(Unmap, asked, echo)
        }),
        control("dma/an-unmap-of-all-takes-every-mapping-away", || {
            Rule::pretends(Unmap, |m| flags(m) & consts::DMA_UNMAP_ALL != 0, echo)
        }),
        control("dma/an-unmap-with-its-bitmap-is-in-bounds", || {
            Rule::edits(
                Unmap,
                |m| flags(m) & 1 != 0,
                |_, reply| put(reply, 40, &[0xff; 8]),
            )
        }),
    ]
}
