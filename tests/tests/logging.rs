//! DMA logging on the wire: ranges, page sizes, unmaps, several devices of one VM, and every error of the protocol notes.

mod common;

use std::time::Duration;

use common::{BUFFER, Host, dma};
use vfio_user_check::client::{Client, DirtyReport, LoggingRange};
use vfio_user_check::driver::{Descriptor, Operation, Ring, regs};
use vfio_user_check::vmm::Vm;
use vfio_user_check::wire::consts;

const PAGE: u64 = 4096;
const RING: u64 = 8 << 20;

/// A VM whose first device can be told to write to given places.
struct Writer {
    vm: Vm,
    ring: Ring,
}

impl Writer {
    fn new(host: &Host) -> Self {
        let mut vm = host.vm(&common::memory());
        let ring = Ring::new(vm.memory(), RING, 16).expect("a ring");
        dma(&mut vm).enable_ring(&ring).expect("the ring is enabled");
        Self { vm, ring }
    }

    fn client(&mut self) -> &mut Client {
        self.vm.devices()[0].client()
    }

    /// The device writes `length` bytes at `dest`; when this returns it has.
    fn write(&mut self, dest: u64, length: u64) {
        let operation = Operation::Fill {
            pattern: 0x5a5a_5a5a_5a5a_5a5a,
            dest,
            length,
        };
        self.ring
            .push(&Descriptor::new(operation, dest))
            .expect("a push")
            .expect("there is room");
        dma(&mut self.vm).ring_doorbell(&self.ring).expect("the doorbell");
        let completion = self
            .ring
            .wait(Duration::from_secs(10))
            .expect("a poll")
            .expect("a completion");
        assert_eq!(completion.status, regs::ERROR_NONE);
    }

    fn start(&mut self, ranges: &[(u64, u64)]) {
        let ranges: Vec<LoggingRange> = ranges
            .iter()
            .map(|&(iova, length)| LoggingRange { iova, length })
            .collect();
        self.client()
            .logging_start(PAGE, &ranges)
            .expect("logging starts");
    }

    fn dirty(&mut self, iova: u64, length: u64, page_size: u64) -> Vec<u64> {
        let report = self
            .client()
            .logging_report(iova, length, page_size)
            .expect("a report");
        report.dirty_pages().collect()
    }
}

#[test]
fn what_was_written_is_reported_once() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER + 100, 5000);
    assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE), [BUFFER, BUFFER + PAGE]);
    assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE), [0_u64; 0]);
}

#[test]
fn completions_are_reported_too() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER, 8);
    let ring = writer.ring.completions();
    assert_eq!(writer.dirty(ring - ring % PAGE, PAGE, PAGE), [ring - ring % PAGE]);
}

#[test]
fn what_is_read_is_not_reported() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    let operation = Operation::Crc {
        source: BUFFER,
        length: 8 * PAGE,
    };
    writer.ring.push(&Descriptor::new(operation, 1)).expect("a push");
    dma(&mut writer.vm)
        .ring_doorbell(&writer.ring)
        .expect("the doorbell");
    writer
        .ring
        .wait(Duration::from_secs(10))
        .expect("a poll")
        .expect("a completion");
    assert_eq!(writer.dirty(BUFFER, 8 * PAGE, PAGE), [0_u64; 0]);
}

#[test]
fn a_sub_range_is_read_without_touching_the_rest() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER, 10 * PAGE);
    assert_eq!(
        writer.dirty(BUFFER + 3 * PAGE, 2 * PAGE, PAGE),
        [BUFFER + 3 * PAGE, BUFFER + 4 * PAGE]
    );
    assert_eq!(writer.dirty(BUFFER, 10 * PAGE, PAGE).len(), 8);
}

#[test]
fn page_sizes_convert_to_supersets_for_odd_lengths() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[]);
    for page_size in [512, 1024, 8192, 1 << 16, 1 << 20] {
        for pages in [1, 3, 63, 64, 65, 129] {
            let written = (BUFFER + 3 * PAGE + 17, 300);
            writer.write(written.0, written.1);
            let length = pages * page_size;
            let start = BUFFER / page_size * page_size;
            let got = writer.dirty(start, length, page_size);
            let first = written.0 / PAGE * PAGE;
            let expected: Vec<u64> = (0..pages)
                .map(|page| start + page * page_size)
                .filter(|page| page + page_size > first && *page < first + PAGE)
                .collect();
            // The granule may be finer than a page; what was written must be there, and nothing beyond the page.
            let touched = |page: u64| page + page_size > written.0 && page < written.0 + written.1;
            assert!(
                got.iter().all(|page| expected.contains(page)),
                "page size {page_size}, {pages} pages: {got:x?}"
            );
            let needed: Vec<u64> = expected.iter().copied().filter(|page| touched(*page)).collect();
            assert!(
                needed.iter().all(|page| got.contains(page)),
                "page size {page_size}, {pages} pages: {got:x?}"
            );
            // What a short report left over is taken before the next.
            writer.dirty(BUFFER, 1 << 20, PAGE);
        }
    }
}

#[test]
fn a_range_with_holes_is_reported_whole() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, 1 << 40)]);
    writer.write(0x9_f000, PAGE);
    writer.write(0x10_0000, PAGE);
    assert_eq!(writer.dirty(0x9_0000, 0x10_0000, PAGE), [0x9_f000, 0x10_0000]);
    assert_eq!(writer.dirty(1 << 39, 1 << 30, PAGE), [0_u64; 0]);
}

#[test]
fn writes_outside_of_the_ranges_are_not_asked_for() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(BUFFER, 4 * PAGE), (BUFFER + 8 * PAGE, 4 * PAGE)]);
    writer.write(BUFFER, 12 * PAGE);
    assert_eq!(writer.dirty(BUFFER, 4 * PAGE, PAGE).len(), 4);
    assert_eq!(writer.dirty(BUFFER + 8 * PAGE, 4 * PAGE, PAGE).len(), 4);
    let error = writer
        .client()
        .logging_report(BUFFER, 12 * PAGE, PAGE)
        .expect_err("a gap is not started");
    assert_eq!(error.errno(), Some(consts::EINVAL));
}

#[test]
fn bits_outlive_an_unmap_until_they_are_read() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER, 3 * PAGE);
    let region = writer.vm.memory().find(BUFFER, 1).expect("a region");
    let unmapped = writer
        .client()
        .dma_unmap(region.iova(), region.size())
        .expect("an unmap");
    assert_eq!(
        (unmapped.unmap.address, unmapped.unmap.size),
        (region.iova(), region.size())
    );
    assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE).len(), 3);
}

#[test]
fn bits_outlive_an_unmap_and_a_new_map() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER, PAGE);
    let region = writer.vm.memory().find(BUFFER, 1).expect("a region");
    writer
        .client()
        .dma_unmap(region.iova(), region.size())
        .expect("an unmap");
    region.map_into(writer.client()).expect("a map");
    writer.write(BUFFER + 5 * PAGE, PAGE);
    assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE), [BUFFER, BUFFER + 5 * PAGE]);
}

#[test]
fn an_unmap_hands_its_bitmap_over_once() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER + 7 * PAGE, 2 * PAGE);
    let region = writer.vm.memory().find(BUFFER, 1).expect("a region");
    let unmapped = writer
        .client()
        .dma_unmap_dirty(region.iova(), region.size(), PAGE)
        .expect("an unmap");
    let report: DirtyReport = unmapped.dirty.expect("a bitmap");
    assert!(report.contains(BUFFER + 7 * PAGE) && report.contains(BUFFER + 8 * PAGE));
    assert!(!report.contains(BUFFER));
    assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE), [0_u64; 0]);
}

#[test]
fn a_page_is_handed_over_once_for_all_devices_of_a_vm() {
    let host = Host::start(2);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    let range = LoggingRange {
        iova: 0,
        length: common::MEMORY,
    };
    writer.vm.devices()[1]
        .client()
        .logging_start(PAGE, &[range])
        .expect("logging starts");
    writer.write(BUFFER, 4 * PAGE);
    let other = writer.vm.devices()[1]
        .client()
        .logging_report(BUFFER, 4 * PAGE, PAGE)
        .expect("a report");
    assert_eq!(other.count(), 4, "the devices of one VM are one reader");
    assert_eq!(writer.dirty(BUFFER, 4 * PAGE, PAGE), [0_u64; 0]);
}

#[test]
fn a_second_start_does_not_clear_what_the_first_has_seen() {
    let host = Host::start(2);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.write(BUFFER, PAGE);
    writer.vm.devices()[1]
        .client()
        .logging_start(PAGE, &[])
        .expect("logging starts");
    assert_eq!(writer.dirty(BUFFER, PAGE, PAGE), [BUFFER]);
}

#[test]
fn one_device_s_stop_leaves_the_other_s_log() {
    let host = Host::start(2);
    let mut writer = Writer::new(&host);
    writer.start(&[(0, common::MEMORY)]);
    writer.vm.devices()[1]
        .client()
        .logging_start(PAGE, &[])
        .expect("logging starts");
    writer.write(BUFFER, PAGE);
    writer.client().logging_stop().expect("logging stops");
    writer.write(BUFFER + PAGE, PAGE);
    let report = writer.vm.devices()[1]
        .client()
        .logging_report(BUFFER, 4 * PAGE, PAGE)
        .expect("a report");
    assert_eq!(report.dirty_pages().collect::<Vec<_>>(), [BUFFER, BUFFER + PAGE]);
}

#[test]
fn logging_that_starts_again_starts_clean() {
    let host = Host::start(1);
    let mut writer = Writer::new(&host);
    for _ in 0..3 {
        writer.start(&[(0, common::MEMORY)]);
        assert_eq!(writer.dirty(BUFFER, 16 * PAGE, PAGE), [0_u64; 0]);
        writer.write(BUFFER, PAGE);
        writer.client().logging_stop().expect("logging stops");
        writer.write(BUFFER + PAGE, PAGE);
    }
}

#[test]
fn every_bad_request_has_the_errno_of_the_protocol_notes() {
    let host = Host::start(1);
    let mut client = host.client();
    let range = |iova, length| LoggingRange { iova, length };
    let errno =
        |answer: Result<(), vfio_user_check::client::Error>| answer.expect_err("it is refused").errno();
    let report = |client: &mut Client, iova, length, page_size| {
        client.logging_report(iova, length, page_size).map(drop)
    };
    assert_eq!(
        errno(report(&mut client, 0, PAGE, PAGE)),
        Some(consts::EINVAL),
        "before START"
    );
    assert_eq!(
        errno(client.logging_start(PAGE, &[range(0, 0)])),
        Some(consts::EINVAL),
        "an empty range"
    );
    let overlap = [range(0, 2 * PAGE), range(PAGE, PAGE)];
    assert_eq!(
        errno(client.logging_start(PAGE, &overlap)),
        Some(consts::EINVAL),
        "ranges that overlap"
    );
    let wrap = [range(u64::MAX - PAGE + 1, 2 * PAGE)];
    assert_eq!(
        errno(client.logging_start(PAGE, &wrap)),
        Some(consts::EINVAL),
        "a range that wraps"
    );
    let many: Vec<LoggingRange> = (0..1025).map(|index| range(index * 2 * PAGE, PAGE)).collect();
    assert_eq!(
        errno(client.logging_start(PAGE, &many)),
        Some(consts::E2BIG),
        "1025 ranges"
    );
    for page_size in [0, 3, 256, 4095, 1 << 31] {
        assert_eq!(
            errno(client.logging_start(page_size, &[])),
            Some(consts::EINVAL),
            "page size {page_size}"
        );
    }
    client
        .logging_start(PAGE, &[range(0, 1 << 30)])
        .expect("logging starts");
    assert_eq!(
        errno(client.logging_start(PAGE, &[])),
        Some(consts::EBUSY),
        "START twice"
    );
    assert_eq!(
        errno(report(&mut client, PAGE, 1 << 30, PAGE)),
        Some(consts::EINVAL),
        "past the range"
    );
    assert_eq!(
        errno(report(&mut client, 100, PAGE, PAGE)),
        Some(consts::EINVAL),
        "an IOVA between pages"
    );
    client.logging_stop().expect("logging stops");
    client
        .logging_start(PAGE, &many[..1024])
        .expect("1024 ranges are taken");
}

#[test]
fn a_report_that_does_not_fit_a_message_is_refused() {
    let host = Host::start(1);
    let mut client = host.client();
    client.logging_start(PAGE, &[]).expect("logging starts");
    let fits = client.capabilities().max_data_xfer_size() as u64 * 8 * PAGE;
    client.logging_report(0, fits, PAGE).expect("the largest report");
    let error = client
        .logging_report(0, 2 * fits, PAGE)
        .expect_err("it is too large");
    assert_eq!(error.errno(), Some(consts::E2BIG));
}
