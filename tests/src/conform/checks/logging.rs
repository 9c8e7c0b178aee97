//! DMA logging on the wire: what START, STOP and REPORT take and answer. What is reported is in `written`.

use std::os::fd::AsFd;

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::{Backing, memory_file};
use crate::wire::{
    Command, DeviceFeature, DmaLoggingControl, DmaLoggingRange, DmaLoggingReport, DmaMap, consts,
};

const START_STOP: Source =
    Source::Spec("VFIO_DEVICE_FEATURE_DMA_LOGGING_START / VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP");
const REPORT: Source = Source::Spec("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT");
const LOG_RANGES: Source = Source::Uapi("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT");
const ONCE: Source = Source::Uapi("VFIO_DEVICE_FEATURE_DMA_LOGGING_START");
const KERNEL_START: Source = Source::Kernel("vfio_ioctl_device_feature_logging_start()");
const KERNEL_REPORT: Source = Source::Kernel("vfio_ioctl_device_feature_logging_report()");
const SIZES: Source = Source::Spec("Message sizes");

const PAGE: u64 = 4096;
const HEAD: usize = size_of::<DeviceFeature>();
const REPORT_SIZE: usize = size_of::<DmaLoggingReport>();

/// The range that is logged.
const RANGE: (u64, u64) = (0, 1 << 30);

pub(super) fn checks() -> Vec<Check> {
    let mut checks = control_checks();
    checks.extend(report_checks());
    checks
}

fn control_checks() -> Vec<Check> {
    vec![
        Check::new(
            "logging/a-start-answers-with-its-request",
            START_STOP,
            "The reply to START has the request's ranges, and the page size that the device chose.",
            start_echo,
        ),
        Check::new(
            "logging/no-ranges-are-all-addresses",
            START_STOP,
            "A START with num_ranges 0 logs all writes: any range can be reported.",
            no_ranges,
        ),
        Check::new(
            "logging/a-start-while-it-runs-is-refused",
            ONCE,
            "Another START before the STOP is not allowed.",
            |probe| {
                let mut client = started(probe)?;
                start(&mut client, PAGE, &[RANGE])?
                    .refused("a second START")
                    .map(drop)
            },
        ),
        Check::new(
            "logging/it-stops-and-starts-again",
            START_STOP,
            "START and STOP follow each other as often as the client likes.",
            again_and_again,
        ),
        Check::new(
            "logging/ranges-are-all-there",
            START_STOP,
            "A START whose num_ranges is more than the ranges that came is refused.",
            missing_ranges,
        ),
        Check::new(
            "logging/ranges-that-wrap-are-refused",
            KERNEL_START,
            "A range that would end behind the last address is refused.",
            |probe| bad_ranges(probe, &[(u64::MAX - PAGE + 1, 16 * PAGE)]),
        ),
    ]
}

fn report_checks() -> Vec<Check> {
    vec![
        Check::new(
            "logging/a-report-needs-a-start",
            REPORT,
            "A REPORT before START, or after STOP, is refused.",
            needs_start,
        ),
        Check::new(
            "logging/a-report-has-its-request-and-the-bitmap",
            REPORT,
            "The reply has the request's structure and then one bit for each page, in whole 64-bit words.",
            report_shape,
        ),
        Check::new(
            "logging/bits-behind-the-range-are-zero",
            REPORT,
            "Bits outside of the requested range are zero, however odd its length.",
            bits_outside,
        ),
        Check::new(
            "logging/a-report-may-be-of-a-part",
            REPORT,
            "Any part of what was started can be reported, at any page size.",
            sub_ranges,
        ),
        Check::new(
            "logging/a-report-may-be-of-what-is-not-mapped",
            LOG_RANGES,
            "What was started may hold addresses without memory, and a report of them says that nothing was written.",
            unmapped,
        ),
        Check::new(
            "logging/page-sizes-are-powers-of-two",
            REPORT,
            "A REPORT with a page size that is no power of two is refused.",
            |probe| {
                let mut client = started(probe)?;
                for page_size in [0, 3, 4095, 4097, 3 * PAGE] {
                    let what = format!("REPORT with page size {page_size}");
                    report(&mut client, 0, 64 * PAGE, page_size)?.refused(&what)?;
                }
                Ok(())
            },
        ),
        Check::new(
            "logging/reports-that-wrap-are-refused",
            KERNEL_REPORT,
            "A REPORT of a range that would end behind the last address is refused.",
            |probe| {
                let mut client = started(probe)?;
                for length in [16 * PAGE, u64::MAX - PAGE + 1] {
                    let what = format!("REPORT of the last page and {length:#x} bytes");
                    report(&mut client, u64::MAX - PAGE + 1, length, PAGE)?.refused(&what)?;
                }
                Ok(())
            },
        ),
        Check::new(
            "logging/a-report-keeps-to-the-room",
            SIZES,
            "The reply to a REPORT is never longer than argsz of its request.",
            little_room,
        ),
        Check::new(
            "logging/a-report-has-its-data",
            REPORT,
            "A REPORT without the whole of its structure is refused.",
            short_report,
        ),
    ]
}

/// A client of a device that logs its DMA, and does not yet.
fn logging(probe: &Probe<'_>) -> Checked<Client> {
    let mut client = probe.ready()?;
    needs::logging(&mut client)?;
    // A log that the client before has left running, on a server that keeps it.
    stop(&mut client)?;
    Ok(client)
}

/// A client whose device logs [`RANGE`].
fn started(probe: &Probe<'_>) -> Checked<Client> {
    let mut client = logging(probe)?;
    start(&mut client, PAGE, &[RANGE])?.done("START")?;
    Ok(client)
}

fn start_payload(page_size: u64, num_ranges: u32, ranges: &[(u64, u64)]) -> Vec<u8> {
    let control = DmaLoggingControl {
        page_size,
        num_ranges,
        reserved: 0,
    };
    let ranges: Vec<DmaLoggingRange> = ranges
        .iter()
        .map(|&(iova, length)| DmaLoggingRange { iova, length })
        .collect();
    let data = [control.as_bytes(), ranges.as_slice().as_bytes()].concat();
    with_head(
        consts::FEATURE_DMA_LOGGING_START | consts::FEATURE_SET,
        HEAD + data.len(),
        &data,
    )
}

fn with_head(flags: u32, argsz: usize, data: &[u8]) -> Vec<u8> {
    let head = DeviceFeature {
        argsz: argsz as u32,
        flags,
    };
    [head.as_bytes(), data].concat()
}

fn start(client: &mut Client, page_size: u64, ranges: &[(u64, u64)]) -> Checked<Answer> {
    let payload = start_payload(page_size, ranges.len() as u32, ranges);
    client.ask(Command::DeviceFeature, &payload)
}

fn stop(client: &mut Client) -> Checked<Answer> {
    let flags = consts::FEATURE_DMA_LOGGING_STOP | consts::FEATURE_SET;
    client.ask(Command::DeviceFeature, &with_head(flags, HEAD, &[]))
}

/// Bytes of the bitmap of a report.
fn bitmap_size(length: u64, page_size: u64) -> usize {
    length.div_ceil(page_size.max(1)).div_ceil(64) as usize * 8
}

fn report_with(client: &mut Client, range: DmaLoggingReport, argsz: usize) -> Checked<Answer> {
    let flags = consts::FEATURE_DMA_LOGGING_REPORT | consts::FEATURE_GET;
    client.ask(Command::DeviceFeature, &with_head(flags, argsz, range.as_bytes()))
}

fn report(client: &mut Client, iova: u64, length: u64, page_size: u64) -> Checked<Answer> {
    let range = DmaLoggingReport {
        iova,
        length,
        page_size,
    };
    // Where the bitmap would be beyond all bounds the request is there to be refused.
    let room = bitmap_size(length, page_size).min(1 << 16);
    report_with(client, range, HEAD + REPORT_SIZE + room)
}

/// The bitmap of a reply, whose structure and length are checked.
fn bitmap(client: &mut Client, iova: u64, length: u64, page_size: u64) -> Checked<Vec<u8>> {
    let what = format!("REPORT of {iova:#x} + {length:#x} in pages of {page_size}");
    let reply = report(client, iova, length, page_size)?.done(&what)?;
    let size = HEAD + REPORT_SIZE + bitmap_size(length, page_size);
    expect::number(
        &format!("the length of the reply to {what}"),
        reply.payload.len() as u64,
        size as u64,
    )?;
    let head: DeviceFeature = parsed(&reply)?;
    expect::number(&format!("argsz of the reply to {what}"), head.argsz, size as u64)?;
    let asked = DmaLoggingReport {
        iova,
        length,
        page_size,
    };
    let answered = &reply.payload[HEAD..HEAD + REPORT_SIZE];
    expect::equal(
        &format!("the structure in the reply to {what}"),
        &answered,
        &asked.as_bytes(),
    )?;
    Ok(reply.payload[HEAD + REPORT_SIZE..].to_vec())
}

fn start_echo(probe: &Probe<'_>) -> Checked {
    let mut client = logging(probe)?;
    let ranges = [(0, 64 * PAGE), (1 << 32, 64 * PAGE)];
    let request = start_payload(PAGE, 2, &ranges);
    let reply = client
        .ask(Command::DeviceFeature, &request)?
        .done("START of two ranges")?;
    expect::number(
        "the payload's length",
        reply.payload.len() as u64,
        request.len() as u64,
    )?;
    let page_size = HEAD..HEAD + 8;
    expect::equal(
        "what is before the page size",
        &&reply.payload[..HEAD],
        &&request[..HEAD],
    )?;
    expect::equal(
        "what is behind it",
        &&reply.payload[page_size.end..],
        &&request[page_size.end..],
    )?;
    let chosen = reply.payload[page_size]
        .iter()
        .rev()
        .fold(0_u64, |size, byte| size << 8 | u64::from(*byte));
    expect::that(chosen.is_power_of_two(), || {
        format!("the page size that was chosen is {chosen:#x}")
    })
}

fn missing_ranges(probe: &Probe<'_>) -> Checked {
    let mut client = logging(probe)?;
    for count in [2, 100, u32::MAX] {
        let payload = start_payload(PAGE, count, &[RANGE]);
        let answer = client.ask(Command::DeviceFeature, &payload)?;
        answer.refused(&format!("START of {count} ranges with one of them"))?;
    }
    Ok(())
}

fn bad_ranges(probe: &Probe<'_>, ranges: &[(u64, u64)]) -> Checked {
    let mut client = logging(probe)?;
    start(&mut client, PAGE, ranges)?
        .refused(&format!("START of {ranges:x?}"))
        .map(drop)
}

fn needs_start(probe: &Probe<'_>) -> Checked {
    let mut client = logging(probe)?;
    report(&mut client, 0, 64 * PAGE, PAGE)?.refused("REPORT before START")?;
    start(&mut client, PAGE, &[RANGE])?.done("START")?;
    stop(&mut client)?.done("STOP")?;
    report(&mut client, 0, 64 * PAGE, PAGE)?
        .refused("REPORT after STOP")
        .map(drop)
}

/// Maps this many pages at an address. Reports are of mapped memory, other than where that is what a check is about: some
/// servers know nothing of other addresses.
fn map(client: &mut Client, address: u64, pages: u64) -> Checked {
    let file = memory_file(pages * PAGE, Backing::Sealed)?;
    let map = DmaMap {
        flags: consts::DMA_MAP_READ | consts::DMA_MAP_WRITE,
        address,
        size: pages * PAGE,
        ..DmaMap::default()
    };
    Ok(client.dma_map(map, Some(file.as_fd()))?)
}

fn no_ranges(probe: &Probe<'_>) -> Checked {
    let mut client = logging(probe)?;
    for address in [0, 1 << 40] {
        map(&mut client, address, 16)?;
    }
    start(&mut client, PAGE, &[])?.done("START without ranges")?;
    for address in [0, 1 << 40] {
        bitmap(&mut client, address, 16 * PAGE, PAGE)?;
    }
    Ok(())
}

fn again_and_again(probe: &Probe<'_>) -> Checked {
    let mut client = logging(probe)?;
    map(&mut client, 0, 64)?;
    for _ in 0..3 {
        start(&mut client, PAGE, &[RANGE])?.done("START")?;
        report(&mut client, 0, 64 * PAGE, PAGE)?.done("REPORT")?;
        stop(&mut client)?.done("STOP")?;
    }
    Ok(())
}

/// A client whose device logs [`RANGE`], with mappings of odd lengths in it: address and pages.
fn odd_mappings(probe: &Probe<'_>) -> Checked<(Client, Vec<(u64, u64)>)> {
    let mut client = logging(probe)?;
    let mappings: Vec<(u64, u64)> = [1, 3, 63, 64, 65, 127, 129, 1000]
        .into_iter()
        .zip(0_u64..)
        .map(|(pages, index)| (index << 24, pages))
        .collect();
    for (address, pages) in &mappings {
        map(&mut client, *address, *pages)?;
    }
    start(&mut client, PAGE, &[RANGE])?.done("START")?;
    Ok((client, mappings))
}

fn report_shape(probe: &Probe<'_>) -> Checked {
    let (mut client, mappings) = odd_mappings(probe)?;
    for (address, pages) in mappings {
        bitmap(&mut client, address, pages * PAGE, PAGE)?;
    }
    Ok(())
}

fn bits_outside(probe: &Probe<'_>) -> Checked {
    let (mut client, mappings) = odd_mappings(probe)?;
    for (address, pages) in mappings {
        let bitmap = bitmap(&mut client, address, pages * PAGE, PAGE)?;
        let is_set = |bit: &u64| bitmap[(bit / 8) as usize] & (1 << (bit % 8)) != 0;
        let outside = (pages..bitmap.len() as u64 * 8).find(is_set);
        expect::equal(&format!("the bit set behind the {pages} pages"), &outside, &None)?;
    }
    Ok(())
}

fn sub_ranges(probe: &Probe<'_>) -> Checked {
    let mut client = started(probe)?;
    map(&mut client, 0, RANGE.1 / PAGE)?;
    for page_size in [PAGE, 2 * PAGE, 1 << 16, 1 << 20] {
        for (first, pages) in [(0, 1), (1, 3), (7, 65), (64, 257), (3, 300)] {
            bitmap(&mut client, first * page_size, pages * page_size, page_size)?;
        }
    }
    Ok(())
}

fn unmapped(probe: &Probe<'_>) -> Checked {
    let mut client = started(probe)?;
    let bitmap = bitmap(&mut client, 1 << 24, 64 * PAGE, PAGE)?;
    expect::that(bitmap.iter().all(|byte| *byte == 0), || {
        format!("in memory that is not there these were written: {bitmap:x?}")
    })
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = started(probe)?;
    map(&mut client, 0, 1024)?;
    let range = DmaLoggingReport {
        iova: 0,
        length: 1024 * PAGE,
        page_size: PAGE,
    };
    for argsz in [0, HEAD, HEAD + REPORT_SIZE, HEAD + REPORT_SIZE + 127] {
        if let Answer::Done(reply) = report_with(&mut client, range, argsz)? {
            expect::that(reply.payload.len() <= argsz, || {
                format!(
                    "the reply has {} bytes, with room for {argsz}",
                    reply.payload.len()
                )
            })?;
        }
    }
    Ok(())
}

fn short_report(probe: &Probe<'_>) -> Checked {
    let mut client = started(probe)?;
    let flags = consts::FEATURE_DMA_LOGGING_REPORT | consts::FEATURE_GET;
    for length in [0, 8, 23] {
        let payload = with_head(flags, 256, &vec![0; length]);
        let answer = client.ask(Command::DeviceFeature, &payload)?;
        answer.refused(&format!("REPORT with {length} bytes of {REPORT_SIZE}"))?;
    }
    Ok(())
}
