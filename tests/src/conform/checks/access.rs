//! REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.

use zerocopy::IntoBytes;

use crate::client::{Client, Message};
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::wire::{Command, RegionAccess, RegionInfo, WriteMultiEntry, consts};

const READ: Source = Source::Spec("VFIO_USER_REGION_READ");
const WRITE: Source = Source::Spec("VFIO_USER_REGION_WRITE");
const MULTI: Source = Source::Spec("VFIO_USER_REGION_WRITE_MULTI");
const LIMIT: Source = Source::Spec("Read and Write Operations");
const FLAGS: Source = Source::Spec("VFIO_USER_DEVICE_GET_REGION_INFO, Reply");

/// A byte of config space that the device keeps and does not use.
const INTERRUPT_LINE: u64 = 0x3c;

/// Bytes of the structure before the data.
const HEAD: usize = size_of::<RegionAccess>();

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "access/a-read-has-what-was-asked-for",
            READ,
            "The reply names offset, region and count of the access, and has as many bytes.",
            read_echo,
        ),
        Check::new(
            "access/config-space-is-read-in-any-width",
            READ,
            "Reads of one byte, two, four and many of configuration space see the same bytes.",
            widths,
        ),
        Check::new(
            "access/a-write-is-acknowledged-and-done",
            WRITE,
            "The reply names offset, region and count of the access and has no data, and a read sees what was written.",
            write_echo,
        ),
        Check::new(
            "access/unknown-regions-are-refused",
            READ,
            "A region that the device does not have is neither read nor written.",
            unknown_regions,
        ),
        Check::new(
            "access/regions-are-not-left",
            READ,
            "An access that begins or ends behind the region's size is refused, or is as long as the region allows.",
            bounds,
        ),
        Check::new(
            "access/empty-regions-are-refused",
            READ,
            "A region of size 0 has nothing to read or write.",
            empty_regions,
        ),
        Check::new(
            "access/flags-of-a-region-are-kept-to",
            FLAGS,
            "A region without VFIO_REGION_INFO_FLAG_READ is not read, one without VFIO_REGION_INFO_FLAG_WRITE not written.",
            flags,
        ),
        Check::new(
            "access/transfers-have-a-limit",
            LIMIT,
            "A count above the server's max_data_xfer_size is refused.",
            too_long,
        ),
        Check::new(
            "access/a-write-without-its-data-is-refused",
            WRITE,
            "A write with fewer bytes than its count is not acknowledged as done.",
            missing_data,
        ),
        Check::new(
            "access/several-writes-are-done-in-order",
            MULTI,
            "REGION_WRITE_MULTI carries out each write, and the reply has their number.",
            multi,
        ),
        Check::new(
            "access/several-writes-are-all-there",
            MULTI,
            "A wr_cnt of more writes than the message has, or a write of more than 8 bytes, is refused.",
            multi_bad,
        ),
    ]
}

fn access(client: &mut Client, command: Command, access: RegionAccess, data: &[u8]) -> Checked<Answer> {
    client.ask(command, &[access.as_bytes(), data].concat())
}

fn read(client: &mut Client, region: u32, offset: u64, count: u32) -> Checked<Answer> {
    let request = RegionAccess {
        offset,
        region,
        count,
    };
    access(client, Command::RegionRead, request, &[])
}

fn write(client: &mut Client, region: u32, offset: u64, data: &[u8]) -> Checked<Answer> {
    let request = RegionAccess {
        offset,
        region,
        count: data.len() as u32,
    };
    access(client, Command::RegionWrite, request, data)
}

/// The data of a read's reply, after a look at its head.
fn data_of(reply: &Message, offset: u64, count: u32) -> Checked<&[u8]> {
    let head: RegionAccess = parsed(reply)?;
    expect::number("the region", head.region, consts::REGION_CONFIG)?;
    expect::number("the offset", head.offset, offset)?;
    expect::number("the count", head.count, count)?;
    expect::number("the bytes of data", (reply.payload.len() - HEAD) as u64, count)?;
    Ok(&reply.payload[HEAD..])
}

fn read_echo(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for (offset, count) in [(0, 4), (2, 2), (INTERRUPT_LINE, 1), (0, 64)] {
        let answer = read(&mut client, consts::REGION_CONFIG, offset, count)?;
        let reply = answer.done(&format!("a read of {count} bytes of config space at {offset:#x}"))?;
        data_of(&reply, offset, count)?;
    }
    Ok(())
}

fn widths(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let whole = read(&mut client, consts::REGION_CONFIG, 0, 64)?.done("a read of 64 bytes")?;
    let whole = data_of(&whole, 0, 64)?.to_vec();
    // Vendor and device, revision and class, header type, subsystem: what does not change.
    for (offset, width) in [(0, 1), (1, 1), (0, 2), (2, 2), (0, 4), (8, 4), (14, 1), (0x2c, 4)] {
        let answer = read(&mut client, consts::REGION_CONFIG, offset, width)?;
        let reply = answer.done(&format!("a read of {width} bytes at {offset:#x}"))?;
        let got = data_of(&reply, offset, width)?;
        let expected = &whole[offset as usize..(offset + u64::from(width)) as usize];
        expect::equal(&format!("what is at {offset:#x}"), &got, &expected)?;
    }
    Ok(())
}

fn write_echo(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for value in [0x5a, 0xa5, 0] {
        let reply = write(&mut client, consts::REGION_CONFIG, INTERRUPT_LINE, &[value])?.done("a write")?;
        let head: RegionAccess = parsed(&reply)?;
        expect::number("the region", head.region, consts::REGION_CONFIG)?;
        expect::number("the offset", head.offset, INTERRUPT_LINE)?;
        expect::number("the count", head.count, 1_u64)?;
        expect::number("the payload's length", reply.payload.len() as u64, HEAD as u64)?;
        let reply = read(&mut client, consts::REGION_CONFIG, INTERRUPT_LINE, 1)?.done("a read")?;
        let line = data_of(&reply, INTERRUPT_LINE, 1)?[0];
        expect::number("the interrupt line that was written", line, value)?;
    }
    Ok(())
}

fn unknown_regions(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let regions = needs::regions(&mut client)?;
    for region in [regions, regions + 7, u32::MAX] {
        read(&mut client, region, 0, 4)?.refused(&format!("a read of region {region}"))?;
        write(&mut client, region, 0, &[0; 4])?.refused(&format!("a write of region {region}"))?;
    }
    Ok(())
}

/// The device's regions.
fn regions(client: &mut Client) -> Checked<Vec<RegionInfo>> {
    let count = needs::regions(client)?;
    let describe = |index| Ok(client.region_info(index)?.info);
    (0..count).map(describe).collect()
}

fn bounds(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for info in regions(&mut client)? {
        if info.size == 0 || info.flags & consts::REGION_FLAG_READ == 0 {
            continue;
        }
        for offset in [
            info.size - 1,
            info.size,
            info.size.saturating_add(4),
            u64::MAX - 3,
            u64::MAX,
        ] {
            let what = format!(
                "8 bytes at {offset:#x} of region {} ({:#x} bytes)",
                info.index, info.size
            );
            let inside = info.size.saturating_sub(offset);
            if let Answer::Done(reply) = read(&mut client, info.index, offset, 8)? {
                let got = (reply.payload.len().saturating_sub(HEAD)) as u64;
                expect::that(got <= inside, || format!("a read of {what} got {got} bytes"))?;
            }
            if info.flags & consts::REGION_FLAG_WRITE == 0 {
                continue;
            }
            if let Answer::Done(reply) = write(&mut client, info.index, offset, &[0; 8])? {
                let done: RegionAccess = parsed(&reply)?;
                expect::that(u64::from(done.count) <= inside, || {
                    format!("a write of {what} did {} bytes", done.count)
                })?;
            }
        }
    }
    client.device_info()?;
    Ok(())
}

fn empty_regions(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for info in regions(&mut client)?.into_iter().filter(|info| info.size == 0) {
        seen = true;
        let what = format!("region {}, which is empty", info.index);
        read(&mut client, info.index, 0, 4)?.refused(&format!("a read of {what}"))?;
        write(&mut client, info.index, 0, &[0; 4])?.refused(&format!("a write of {what}"))?;
    }
    if seen {
        Ok(())
    } else {
        skip("every region has a size")
    }
}

fn flags(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let mut seen = false;
    for info in regions(&mut client)? {
        if info.flags & consts::REGION_FLAG_READ == 0 {
            seen = true;
            let what = format!("a read of region {} without the flag", info.index);
            read(&mut client, info.index, 0, 4)?.refused(&what)?;
        }
        if info.flags & consts::REGION_FLAG_WRITE == 0 {
            seen = true;
            let what = format!("a write of region {} without the flag", info.index);
            write(&mut client, info.index, 0, &[0; 4])?.refused(&what)?;
        }
    }
    if seen {
        Ok(())
    } else {
        skip("every region can be read and written")
    }
}

fn too_long(probe: &Probe<'_>) -> Checked {
    let most = probe.ready()?.capabilities().max_data_xfer_size() as u64;
    for count in [
        most.saturating_add(1),
        most.saturating_mul(2),
        u64::from(u32::MAX),
    ] {
        let Ok(count) = u32::try_from(count) else { continue };
        let mut client = probe.ready()?;
        let what = format!("a read of {count} bytes, where {most} are the most");
        read(&mut client, consts::REGION_CONFIG, 0, count)?.refused(&what)?;
    }
    Ok(())
}

fn missing_data(probe: &Probe<'_>) -> Checked {
    for (count, data) in [(4, 0), (4, 3), (64, 8), (u32::MAX, 4)] {
        let mut client = probe.ready()?;
        let request = RegionAccess {
            offset: INTERRUPT_LINE,
            region: consts::REGION_CONFIG,
            count,
        };
        let what = format!("a write of {count} bytes with {data} of them");
        access(&mut client, Command::RegionWrite, request, &vec![0; data])?.refused(&what)?;
    }
    Ok(())
}

/// A client of a server that announced REGION_WRITE_MULTI.
fn multi_client(probe: &Probe<'_>) -> Checked<Client> {
    let client = probe.ready()?;
    if client.capabilities().write_multiple == Some(true) {
        return Ok(client);
    }
    skip("the server does not announce `write_multiple`")
}

fn entry(value: u8, count: u32) -> WriteMultiEntry {
    WriteMultiEntry {
        offset: INTERRUPT_LINE,
        region: consts::REGION_CONFIG,
        count,
        data: [value; 8],
    }
}

fn multi(probe: &Probe<'_>) -> Checked {
    let mut client = multi_client(probe)?;
    let entries = [entry(0x11, 1), entry(0x22, 1), entry(0x33, 1)];
    let payload = [3_u64.as_bytes(), entries.as_bytes()].concat();
    let reply = client
        .ask(Command::RegionWriteMulti, &payload)?
        .done("three writes")?;
    expect::number("wr_cnt of the reply", parsed::<u64>(&reply)?, 3_u64)?;
    let mut line = [0];
    client.region_read(consts::REGION_CONFIG, INTERRUPT_LINE, &mut line)?;
    expect::number("what the last one wrote", line[0], 0x33_u64)
}

fn multi_bad(probe: &Probe<'_>) -> Checked {
    let mut client = multi_client(probe)?;
    let one = entry(1, 1);
    for count in [2, 1000, u64::MAX] {
        let payload = [count.as_bytes(), one.as_bytes()].concat();
        let answer = client.ask(Command::RegionWriteMulti, &payload)?;
        answer.refused(&format!("wr_cnt {count} with one write"))?;
    }
    let payload = [1_u64.as_bytes(), entry(1, 9).as_bytes()].concat();
    client
        .ask(Command::RegionWriteMulti, &payload)?
        .refused("a write of 9 bytes")?;
    Ok(())
}
