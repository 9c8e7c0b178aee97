//! DEVICE_GET_REGION_INFO, its capabilities, and DEVICE_GET_REGION_IO_FDS.

use std::sync::Arc;

use vm_memory::{FileOffset, MmapRegion};
use zerocopy::{FromBytes, IntoBytes};

use crate::client::{Client, Message};
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::wire::{CapHeader, Command, RegionInfo, RegionIoFds, SparseMmapArea, SparseMmapHeader, consts};

const REPLY: Source = Source::Spec("VFIO_USER_DEVICE_GET_REGION_INFO, Reply");
const CAPS: Source = Source::Spec("VFIO region capabilities");
const SPARSE: Source = Source::Spec("VFIO sparse mmap cap header");
const IO_FDS: Source = Source::Spec("VFIO_USER_DEVICE_GET_REGION_IO_FDS, Reply");
const SIZES: Source = Source::Spec("Message sizes");

/// Bytes of the structure.
const INFO_SIZE: u32 = size_of::<RegionInfo>() as u32;

/// Room for every reply that makes sense.
const ROOM: u32 = 1 << 16;

/// What can be mapped is whole pages.
const PAGE: u64 = 4096;

/// Bytes of a sub-region's description, at least.
const SUB_REGION: usize = 40;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "region/every-region-is-described",
            REPLY,
            "Each region below num_regions is answered for, with its own index and the argsz that the reply has.",
            |probe| each_region(probe, |_, _| Ok(())),
        ),
        Check::new(
            "region/unknown-regions-are-refused",
            Source::Kernel("vfio_pci_ioctl_get_region_info()"),
            "A region that the device does not have is not described.",
            unknown,
        ),
        Check::new(
            "region/config-space-is-there",
            Source::Uapi("VFIO_PCI_CONFIG_REGION_INDEX"),
            "Region 7 of a PCI device is its configuration space: 256 or 4096 bytes that can be read and written.",
            config_space,
        ),
        Check::new(
            "region/less-room-is-kept-to",
            SIZES,
            "A reply is never longer than argsz of its request: it is refused, or says what is needed.",
            little_room,
        ),
        Check::new(
            "region/capabilities-wait-for-room",
            SIZES,
            "With room for the structure alone, argsz of the reply says what the capabilities need, and with that they come.",
            caps_wait,
        ),
        Check::new(
            "region/capabilities-are-in-the-reply",
            CAPS,
            "cap_offset and each next lie behind the structure and within the reply, whatever room there was, and the list ends.",
            caps_are_there,
        ),
        Check::new(
            "region/what-can-be-mapped-has-a-file",
            REPLY,
            "A region with VFIO_REGION_INFO_FLAG_MMAP comes with a file descriptor.",
            mappable_has_fd,
        ),
        Check::new(
            "region/sparse-areas-are-in-the-region",
            SPARSE,
            "Areas of the sparse capability are whole pages within the region, none empty, none twice.",
            sparse_areas,
        ),
        Check::new(
            "region/what-can-be-mapped-is-mapped",
            REPLY,
            "mmap() of each area that is offered, at the offset of the reply, works.",
            can_be_mapped,
        ),
        Check::new(
            "region/io-fds-are-well-formed",
            IO_FDS,
            "Sub-regions fill the reply, name file descriptors that came with it, and lie within the region.",
            io_fds,
        ),
        Check::new(
            "region/io-fds-of-unknown-regions-are-refused",
            IO_FDS,
            "A region that the device does not have has no sub-regions.",
            io_fds_unknown,
        ),
        Check::new(
            "region/io-fds-keep-to-the-room",
            SIZES,
            "A reply is never longer than argsz of its request.",
            io_fds_little_room,
        ),
    ]
}

fn ask(client: &mut Client, index: u32, argsz: u32) -> Checked<Answer> {
    let request = RegionInfo {
        argsz,
        index,
        ..RegionInfo::default()
    };
    client.ask(Command::DeviceGetRegionInfo, request.as_bytes())
}

fn describe(client: &mut Client, index: u32) -> Checked<(RegionInfo, Message)> {
    let reply = ask(client, index, ROOM)?.done(&format!("GET_REGION_INFO of region {index}"))?;
    let info: RegionInfo = parsed(&reply)?;
    expect::number("the index", info.index, index)?;
    expect::number(
        &format!("argsz of region {index}"),
        info.argsz,
        reply.payload.len() as u64,
    )?;
    Ok((info, reply))
}

/// Does something with every region's description.
fn each_region(probe: &Probe<'_>, mut look: impl FnMut(&RegionInfo, &Message) -> Checked) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::regions(&mut client)? {
        let (info, reply) = describe(&mut client, index)?;
        look(&info, &reply)?;
    }
    Ok(())
}

fn unknown(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let regions = needs::regions(&mut client)?;
    for index in [regions, regions + 1, u32::MAX] {
        ask(&mut client, index, ROOM)?.refused(&format!("GET_REGION_INFO of region {index}"))?;
    }
    Ok(())
}

fn config_space(probe: &Probe<'_>) -> Checked {
    let (info, _) = describe(&mut probe.ready()?, consts::REGION_CONFIG)?;
    let access = consts::REGION_FLAG_READ | consts::REGION_FLAG_WRITE;
    expect::number("its access flags", info.flags & access, access)?;
    expect::that(matches!(info.size, 256 | 4096), || {
        format!("it has {} bytes", info.size)
    })
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::regions(&mut client)? {
        for argsz in [0, 8, 31, 32, 33, 40, 56] {
            if let Answer::Done(reply) = ask(&mut client, index, argsz)? {
                expect::that(reply.payload.len() <= argsz as usize, || {
                    format!(
                        "the reply about region {index} has {} bytes, with room for {argsz}",
                        reply.payload.len()
                    )
                })?;
            }
        }
    }
    Ok(())
}

fn caps_are_there(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::regions(&mut client)? {
        let (info, reply) = describe(&mut client, index)?;
        caps_of(&info, &reply)?;
        // QEMU asks so first, and refuses a device that claims capabilities and does not say where.
        let answer = ask(&mut client, index, INFO_SIZE)?;
        let short = answer.done(&format!("region {index} with argsz {INFO_SIZE}"))?;
        caps_of(&parsed(&short)?, &short)?;
    }
    Ok(())
}

fn caps_wait(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for index in 0..needs::regions(&mut client)? {
        let (whole, reply) = describe(&mut client, index)?;
        if whole.flags & consts::REGION_FLAG_CAPS == 0 {
            continue;
        }
        seen = true;
        let answer = ask(&mut client, index, INFO_SIZE)?;
        let short: RegionInfo = parsed(&answer.done(&format!("region {index} with argsz 32"))?)?;
        expect::number("argsz of the short reply", short.argsz, whole.argsz)?;
        let answer = ask(&mut client, index, short.argsz)?;
        let again = answer.done(&format!("region {index} with argsz {}", short.argsz))?;
        expect::number(
            "the length of the reply",
            again.payload.len() as u64,
            reply.payload.len() as u64,
        )?;
    }
    if seen {
        Ok(())
    } else {
        skip("no region has capabilities")
    }
}

/// The capabilities of a region: each one's header, and what follows it.
fn caps_of<'a>(info: &RegionInfo, reply: &'a Message) -> Checked<Vec<(CapHeader, &'a [u8])>> {
    let mut found = Vec::new();
    if info.flags & consts::REGION_FLAG_CAPS == 0 {
        return Ok(found);
    }
    let mut next = info.cap_offset;
    let most = reply.payload.len() / size_of::<CapHeader>();
    while next != 0 {
        expect::that(next >= INFO_SIZE, || {
            format!(
                "a capability of region {} is at {next:#x}, in the structure",
                info.index
            )
        })?;
        let bytes = reply.payload.get(next as usize..).unwrap_or_default();
        let Ok((cap, rest)) = CapHeader::read_from_prefix(bytes) else {
            return fail(format!(
                "a capability of region {} is at {next:#x}, the reply has {:#x} bytes",
                info.index,
                reply.payload.len()
            ));
        };
        found.push((cap, rest));
        expect::that(found.len() <= most, || {
            format!("the list of region {}'s capabilities does not end", info.index)
        })?;
        next = cap.next;
    }
    expect::that(!found.is_empty(), || {
        format!(
            "region {} has VFIO_REGION_INFO_FLAG_CAPS and no capability",
            info.index
        )
    })?;
    Ok(found)
}

/// The areas of the sparse capability, if the region has one.
fn sparse_of(info: &RegionInfo, reply: &Message) -> Checked<Option<Vec<SparseMmapArea>>> {
    let caps = caps_of(info, reply)?;
    let Some((_, rest)) = caps
        .iter()
        .find(|(cap, _)| cap.id == consts::REGION_CAP_SPARSE_MMAP)
    else {
        return Ok(None);
    };
    let areas = SparseMmapHeader::read_from_prefix(rest)
        .ok()
        .and_then(|(head, rest)| {
            let bytes = rest.get(..head.nr_areas as usize * size_of::<SparseMmapArea>())?;
            let areas = bytes.chunks_exact(size_of::<SparseMmapArea>());
            areas
                .map(|area| SparseMmapArea::read_from_bytes(area).ok())
                .collect()
        });
    match areas {
        Some(areas) => Ok(Some(areas)),
        None => fail(format!(
            "the areas of region {} are not all in the reply",
            info.index
        )),
    }
}

fn mappable_has_fd(probe: &Probe<'_>) -> Checked {
    let mut seen = false;
    each_region(probe, |info, reply| {
        let mappable = info.flags & consts::REGION_FLAG_MMAP != 0;
        seen |= mappable;
        expect::that(!mappable || !reply.fds.is_empty(), || {
            format!("region {} can be mapped, and no file descriptor came", info.index)
        })
    })?;
    if seen {
        Ok(())
    } else {
        skip("no region can be mapped")
    }
}

fn sparse_areas(probe: &Probe<'_>) -> Checked {
    let mut seen = false;
    each_region(probe, |info, reply| {
        let Some(mut areas) = sparse_of(info, reply)? else {
            return Ok(());
        };
        seen = true;
        areas.sort_by_key(|area| area.offset);
        let mut end = 0;
        for area in &areas {
            let inside = area
                .offset
                .checked_add(area.size)
                .is_some_and(|end| end <= info.size);
            let whole = area.size > 0 && area.offset.is_multiple_of(PAGE) && area.size.is_multiple_of(PAGE);
            expect::that(inside && whole && area.offset >= end, || {
                format!(
                    "area {:#x} + {:#x} of region {} ({:#x} bytes)",
                    area.offset, area.size, info.index, info.size
                )
            })?;
            end = area.offset + area.size;
        }
        Ok(())
    })?;
    if seen {
        Ok(())
    } else {
        skip("no region has a sparse capability")
    }
}

fn can_be_mapped(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for index in 0..needs::regions(&mut client)? {
        let (info, mut reply) = describe(&mut client, index)?;
        if info.flags & consts::REGION_FLAG_MMAP == 0 || reply.fds.is_empty() {
            continue;
        }
        let whole = SparseMmapArea {
            offset: 0,
            size: info.size,
        };
        let areas = sparse_of(&info, &reply)?.unwrap_or_else(|| vec![whole]);
        let file = Arc::new(std::fs::File::from(reply.fds.swap_remove(0)));
        for area in areas {
            seen = true;
            let start = FileOffset::from_arc(Arc::clone(&file), info.offset.wrapping_add(area.offset));
            if let Err(error) = MmapRegion::<()>::from_file(start, area.size as usize) {
                return fail(format!(
                    "{:#x} + {:#x} of region {index}: {error}",
                    area.offset, area.size
                ));
            }
        }
    }
    if seen {
        Ok(())
    } else {
        skip("no region can be mapped")
    }
}

fn ask_io_fds(client: &mut Client, index: u32, argsz: u32) -> Checked<Answer> {
    let request = RegionIoFds {
        argsz,
        index,
        ..RegionIoFds::default()
    };
    client.ask(Command::DeviceGetRegionIoFds, request.as_bytes())
}

fn io_fds(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for index in 0..needs::regions(&mut client)? {
        let Answer::Done(reply) = ask_io_fds(&mut client, index, ROOM)? else {
            continue;
        };
        let size = client.region_info(index)?.info.size;
        seen |= io_fds_of(index, size, &reply)?;
    }
    if seen {
        Ok(())
    } else {
        skip("no region has sub-regions with a file descriptor")
    }
}

/// Checks a reply, and says whether there are sub-regions in it.
fn io_fds_of(index: u32, size: u64, reply: &Message) -> Checked<bool> {
    let head: RegionIoFds = parsed(reply)?;
    expect::number("the index", head.index, index)?;
    expect::number("the flags", head.flags, 0_u64)?;
    expect::number("argsz", head.argsz, reply.payload.len() as u64)?;
    if head.count == 0 {
        return Ok(false);
    }
    let array = &reply.payload[size_of::<RegionIoFds>()..];
    let each = array.len() / head.count as usize;
    expect::that(
        each >= SUB_REGION && each * head.count as usize == array.len(),
        || format!("{} sub-regions in {} bytes", head.count, array.len()),
    )?;
    for entry in array.chunks_exact(each) {
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap_or_default());
        let (offset, length, fd_index) = (word(0), word(8), word(16) & 0xffff_ffff);
        expect::that(fd_index < reply.fds.len() as u64, || {
            format!(
                "fd_index is {fd_index}, {} file descriptors came",
                reply.fds.len()
            )
        })?;
        expect::that(offset.checked_add(length).is_some_and(|end| end <= size), || {
            format!("sub-region {offset:#x} + {length:#x} of region {index} ({size:#x} bytes)")
        })?;
    }
    Ok(true)
}

fn io_fds_unknown(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let regions = needs::regions(&mut client)?;
    for index in [regions, u32::MAX] {
        ask_io_fds(&mut client, index, ROOM)?.refused(&format!("GET_REGION_IO_FDS of region {index}"))?;
    }
    Ok(())
}

fn io_fds_little_room(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for index in 0..needs::regions(&mut client)? {
        for argsz in [0, 15, 16, 17, 55] {
            if let Answer::Done(reply) = ask_io_fds(&mut client, index, argsz)? {
                expect::that(reply.payload.len() <= argsz as usize, || {
                    format!(
                        "region {index}: {} bytes, with room for {argsz}",
                        reply.payload.len()
                    )
                })?;
            }
        }
    }
    Ok(())
}
