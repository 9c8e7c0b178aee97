//! DMA_MAP and DMA_UNMAP.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{SealFlags, fcntl_add_seals};
use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::vmm::{Backing, memory_file};
use crate::wire::{Command, DirtyBitmap, DmaMap, DmaUnmap, consts};

const MAP: Source = Source::Spec("VFIO_USER_DMA_MAP, Request");
const UNMAP: Source = Source::Spec("VFIO_USER_DMA_UNMAP");
const UNMAP_REPLY: Source = Source::Spec("VFIO_USER_DMA_UNMAP, Reply");
const KERNEL_MAP: Source = Source::Kernel("vfio_dma_do_map()");

const PAGE: u64 = 4096;
/// Bytes of the mappings that are tried.
const SIZE: u64 = 16 * PAGE;
/// Where they are.
const BASE: u64 = 1 << 32;

const ACCESS: u32 = consts::DMA_MAP_READ | consts::DMA_MAP_WRITE;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = map_checks();
    checks.extend(unmap_checks());
    checks
}

fn map_checks() -> Vec<Check> {
    vec![
        Check::new(
            "dma/memory-with-a-file-is-mapped",
            MAP,
            "A region with a file descriptor is mapped, in each combination of readable and writeable that makes sense, \
             with the access mode left open and with mmap; the reply has no payload.",
            maps,
        ),
        Check::new(
            "dma/memory-without-a-file-is-mapped",
            MAP,
            "Without an access mode and without a file descriptor the server uses messages: the region is taken.",
            without_fd,
        ),
        Check::new(
            "dma/an-access-mode-without-its-file-is-einval",
            MAP,
            "An access mode that needs a file descriptor, without one, is refused with EINVAL.",
            mode_without_fd,
        ),
        Check::new(
            "dma/a-map-over-another-is-eexist",
            MAP,
            "A map over an existing region, in part or whole, is refused with EEXIST.",
            overlapping,
        ),
        Check::new(
            "dma/maps-may-touch",
            MAP,
            "Regions that end where others begin do not overlap; one file may be behind several.",
            adjacent,
        ),
        Check::new(
            "dma/a-map-that-wraps-is-refused",
            KERNEL_MAP,
            "A region that would end behind the last address is refused.",
            wraps,
        ),
        Check::new(
            "dma/an-empty-map-is-refused",
            KERNEL_MAP,
            "A region of size 0 is refused.",
            |probe| {
                let mut client = probe.ready()?;
                let empty = DmaMap {
                    size: 0,
                    ..region(BASE)
                };
                map(&mut client, empty, Some(&file()?))?
                    .refused("a map of size 0")
                    .map(drop)
            },
        ),
        Check::new(
            "dma/an-unaligned-map-is-refused",
            Source::Spec("VFIO_USER_VERSION, Request: pgsizes"),
            "Where the server does not announce smaller pages, address and size are multiples of 4 KiB.",
            unaligned,
        ),
        Check::new(
            "dma/as-many-maps-as-announced-are-taken",
            Source::Spec("VFIO_USER_VERSION, Request: max_dma_maps"),
            "At least max_dma_maps regions, or 65535 by default, can be mapped at a time; 2000 of them are tried.",
            many,
        ),
    ]
}

fn unmap_checks() -> Vec<Check> {
    vec![
        Check::new(
            "dma/an-unmap-answers-with-its-region",
            UNMAP_REPLY,
            "The reply to an unmap has the request's address and size, and the region can be mapped again.",
            unmaps,
        ),
        Check::new(
            "dma/an-unmap-names-a-mapping-exactly",
            UNMAP,
            "An unmap of anything but one mapping as it was made is refused, and leaves the mappings as they are.",
            inexact,
        ),
        Check::new(
            "dma/an-unmap-lets-go-of-the-memory",
            UNMAP_REPLY,
            "When an unmap is answered the server has released all references to the memory.",
            lets_go,
        ),
        Check::new(
            "dma/an-unmap-of-all-takes-every-mapping-away",
            Source::Uapi("VFIO_DMA_UNMAP_FLAG_ALL"),
            "Where the server takes the flag, no mapping is left after it.",
            all,
        ),
        Check::new(
            "dma/an-unmap-with-its-bitmap-is-in-bounds",
            Source::Uapi("VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP"),
            "Where the server takes the flag, the reply has the bitmap behind the request's structures, as long as asked for.",
            bitmap,
        ),
    ]
}

fn file() -> Checked<File> {
    Ok(memory_file(SIZE, Backing::Unsealed)?)
}

fn region(address: u64) -> DmaMap {
    DmaMap {
        argsz: size_of::<DmaMap>() as u32,
        flags: ACCESS,
        offset: 0,
        address,
        size: SIZE,
    }
}

fn map(client: &mut Client, map: DmaMap, file: Option<&File>) -> Checked<Answer> {
    let fd = file.map(AsFd::as_fd);
    client.ask_with(Command::DmaMap, map.as_bytes(), fd.as_slice())
}

fn unmap(client: &mut Client, address: u64, size: u64, flags: u32) -> Checked<Answer> {
    let request = DmaUnmap {
        argsz: size_of::<DmaUnmap>() as u32,
        flags,
        address,
        size,
    };
    client.ask(Command::DmaUnmap, request.as_bytes())
}

/// A client with one region mapped at [`BASE`].
fn mapped(probe: &Probe<'_>, file: &File) -> Checked<Client> {
    let mut client = probe.ready()?;
    map(&mut client, region(BASE), Some(file))?.done("a map")?;
    Ok(client)
}

/// Maps a region that must be taken.
fn is_taken(client: &mut Client, address: u64, file: &File) -> Checked {
    map(client, region(address), Some(file))?
        .done(&format!("a map at {address:#x}"))
        .map(drop)
}

fn maps(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let file = file()?;
    for access in [ACCESS, consts::DMA_MAP_READ, consts::DMA_MAP_WRITE] {
        for mode in [0, consts::DMA_MAP_MODE_MMAP] {
            let flags = access | mode;
            let request = DmaMap {
                flags,
                ..region(BASE)
            };
            let reply =
                map(&mut client, request, Some(&file))?.done(&format!("a map with flags {flags:#x}"))?;
            expect::number("the payload's length", reply.payload.len() as u64, 0_u64)?;
            unmap(&mut client, BASE, SIZE, 0)?.done("an unmap")?;
        }
    }
    Ok(())
}

fn without_fd(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let reply = map(&mut client, region(BASE), None)?.done("a map without a file descriptor")?;
    expect::number("the payload's length", reply.payload.len() as u64, 0_u64)?;
    unmap(&mut client, BASE, SIZE, 0)?.done("an unmap").map(drop)
}

fn mode_without_fd(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for mode in [consts::DMA_MAP_MODE_MMAP, consts::DMA_MAP_MODE_FILE_IO] {
        let request = DmaMap {
            flags: ACCESS | mode,
            ..region(BASE)
        };
        map(&mut client, request, None)?.refused_with(consts::EINVAL, &format!("access mode {mode:#x}"))?;
    }
    Ok(())
}

fn overlapping(probe: &Probe<'_>) -> Checked {
    let file = memory_file(4 * SIZE, Backing::Unsealed)?;
    let mut client = mapped(probe, &file)?;
    for (address, size) in [
        (BASE, SIZE),
        (BASE + PAGE, PAGE),
        (BASE, PAGE),
        (BASE + SIZE - PAGE, PAGE),
        (BASE - PAGE, 2 * PAGE),
        (BASE + SIZE - PAGE, 2 * PAGE),
        (BASE - SIZE, 3 * SIZE),
    ] {
        let request = DmaMap {
            address,
            size,
            ..region(BASE)
        };
        let what = format!("a map at {address:#x} + {size:#x} over one at {BASE:#x} + {SIZE:#x}");
        map(&mut client, request, Some(&file))?.refused_with(consts::EEXIST, &what)?;
    }
    Ok(())
}

fn adjacent(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    for address in [BASE - SIZE, BASE + SIZE] {
        is_taken(&mut client, address, &file)?;
    }
    Ok(())
}

fn wraps(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let file = file()?;
    for (address, size) in [
        (u64::MAX - PAGE + 1, 2 * PAGE),
        (PAGE, u64::MAX - PAGE + 1),
        (u64::MAX - PAGE + 1, SIZE),
    ] {
        let request = DmaMap {
            address,
            size,
            ..region(BASE)
        };
        map(&mut client, request, Some(&file))?.refused(&format!("a map at {address:#x} + {size:#x}"))?;
    }
    Ok(())
}

fn unaligned(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    if client
        .capabilities()
        .pgsizes
        .is_some_and(|sizes| sizes & (PAGE - 1) != 0)
    {
        return skip("the server announces pages below 4 KiB");
    }
    let file = file()?;
    for (address, size) in [
        (BASE + 1, SIZE),
        (BASE + 512, SIZE),
        (BASE, SIZE - 1),
        (BASE, PAGE + 8),
    ] {
        let request = DmaMap {
            address,
            size,
            ..region(BASE)
        };
        map(&mut client, request, Some(&file))?.refused(&format!("a map at {address:#x} + {size:#x}"))?;
    }
    Ok(())
}

fn many(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let announced = client
        .capabilities()
        .max_dma_maps
        .unwrap_or(consts::DEFAULT_MAX_DMA_MAPS);
    for index in 0..announced.min(2000) {
        let request = region(BASE + index * 2 * SIZE);
        map(&mut client, request, None)?.done(&format!("map {} of {announced}", index + 1))?;
    }
    Ok(())
}

fn unmaps(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    for _ in 0..3 {
        let reply = unmap(&mut client, BASE, SIZE, 0)?.done("an unmap")?;
        let entry: DmaUnmap = parsed(&reply)?;
        expect::number("the address", entry.address, BASE)?;
        expect::number("the size", entry.size, SIZE)?;
        is_taken(&mut client, BASE, &file)?;
    }
    Ok(())
}

fn inexact(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    is_taken(&mut client, BASE + SIZE, &file)?;
    for (address, size) in [
        (BASE - SIZE, SIZE),
        (BASE, PAGE),
        (BASE + PAGE, SIZE - PAGE),
        (BASE, SIZE - PAGE),
        (BASE, SIZE + PAGE),
        (BASE, 2 * SIZE),
        (BASE - PAGE, SIZE + PAGE),
        (BASE, 0),
        (0, u64::MAX),
    ] {
        let what = format!("an unmap of {address:#x} + {size:#x}");
        unmap(&mut client, address, size, 0)?.refused(&what)?;
    }
    for address in [BASE, BASE + SIZE] {
        let what = format!("a map into the one at {address:#x} that must still be there");
        let inside = DmaMap {
            size: PAGE,
            ..region(address + PAGE)
        };
        map(&mut client, inside, Some(&file))?.refused(&what)?;
        unmap(&mut client, address, SIZE, 0)?.done("an unmap as it was mapped")?;
    }
    Ok(())
}

/// Whether nobody has the file mapped for writing: then, and only then, the kernel forbids writes to it for good.
pub(super) fn is_let_go(file: &File) -> Checked<bool> {
    match fcntl_add_seals(file, SealFlags::WRITE) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::BUSY) => Ok(false),
        Err(errno) => fail(format!("the memory cannot be sealed: {errno}")),
    }
}

fn lets_go(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    unmap(&mut client, BASE, SIZE, 0)?.done("an unmap")?;
    expect::that(is_let_go(&file)?, || {
        "the memory is still mapped by the server after the reply to the unmap".to_owned()
    })
}

fn all(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    is_taken(&mut client, BASE + 4 * SIZE, &file)?;
    if let Answer::Refused(_) = unmap(&mut client, 0, 0, consts::DMA_UNMAP_ALL)? {
        return skip("the server does not take VFIO_DMA_UNMAP_FLAG_ALL");
    }
    is_taken(&mut client, BASE, &file)?;
    is_taken(&mut client, BASE + 4 * SIZE, &file)
}

fn bitmap(probe: &Probe<'_>) -> Checked {
    let file = file()?;
    let mut client = mapped(probe, &file)?;
    if client.probe_feature(consts::FEATURE_DMA_LOGGING_START, consts::FEATURE_SET)? {
        client.logging_start(PAGE, &[])?;
    }
    let head = size_of::<DmaUnmap>() + size_of::<DirtyBitmap>();
    let request = DmaUnmap {
        argsz: head as u32 + 8,
        flags: consts::DMA_UNMAP_GET_DIRTY_BITMAP,
        address: BASE,
        size: SIZE,
    };
    let room = DirtyBitmap {
        pgsize: PAGE,
        size: 8,
    };
    let reply = match client.ask(Command::DmaUnmap, &[request.as_bytes(), room.as_bytes()].concat())? {
        Answer::Done(reply) if reply.payload.len() > size_of::<DmaUnmap>() => reply,
        Answer::Closed => return fail("the server closed the connection"),
        _ => return skip("the server does not take VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP"),
    };
    expect::number(
        "the payload's length",
        reply.payload.len() as u64,
        head as u64 + 8,
    )?;
    let pages = SIZE / PAGE;
    let word = reply.payload[head..]
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    expect::number("the bits behind the region", word >> pages, 0_u64)
}
