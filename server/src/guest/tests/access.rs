//! What a device may reach, and what it gets.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::super::testing::{Guest, memfd};
use super::super::{Access, BusMaster, COPY_MAX, DmaError, MapRefusal, MapRequest};
use super::{NONE, PAGE, map, request, shortly, space};

#[test]
fn every_page_written_is_marked_and_no_other() {
    let guest = Guest::at(1 << 32, 64 * PAGE);
    let (dma, base) = (guest.dma(), guest.base());
    guest.start_tracking();
    dma.write(base + 0xfff, &[1, 2]).unwrap();
    dma.copy(base, base + 4 * PAGE + 10, 2 * PAGE as usize).unwrap();
    dma.store_u32(base + 10 * PAGE, 7, Ordering::Release).unwrap();
    dma.store_u32(base + 13 * PAGE - 2, 7, Ordering::Release).unwrap();
    drop(dma.lease(base + 20 * PAGE, 1).unwrap());
    let mut data = [0; 64];
    dma.read(base + 30 * PAGE, &mut data).unwrap();
    dma.load_u32(base + 31 * PAGE, Ordering::Acquire).unwrap();
    dma.check(base + 32 * PAGE, PAGE, Access::Write).unwrap();
    dma.write(base + 33 * PAGE, &[]).unwrap();
    let pages: Vec<_> = guest
        .take_dirty()
        .iter()
        .map(|page| (page - base) / PAGE)
        .collect();
    assert_eq!(pages, [0, 1, 4, 5, 6, 10, 12, 13, 20]);
    assert_eq!(guest.take_dirty(), NONE);
}

#[test]
fn what_is_written_is_what_the_guest_and_the_device_read() {
    let guest = Guest::new(64 * PAGE);
    let dma = guest.dma();
    let data: Vec<u8> = (0..5 * PAGE).map(|byte| byte as u8 ^ (byte >> 8) as u8).collect();
    dma.write(123, &data).unwrap();
    dma.copy(123, 0x1_0001, data.len()).unwrap();
    let (mut by_guest, mut by_device) = (vec![0; data.len()], vec![0; data.len()]);
    guest.read(0x1_0001, &mut by_guest);
    dma.read(0x1_0001, &mut by_device).unwrap();
    assert_eq!(by_guest, data);
    assert_eq!(by_device, data);
    dma.store_u32(0x100, 0x0403_0201, Ordering::Release).unwrap();
    dma.store_u32(0x10a, 0x0403_0201, Ordering::Release).unwrap();
    let mut bytes = [0; 16];
    guest.read(0x100, &mut bytes);
    assert_eq!(bytes[..4], [1, 2, 3, 4]);
    assert_eq!(bytes[10..14], [1, 2, 3, 4]);
    assert_eq!(dma.load_u32(0x100, Ordering::Acquire), Ok(0x0403_0201));
    assert_eq!(dma.load_u32(0x10a, Ordering::Acquire), Ok(0x0403_0201));
}

#[test]
fn a_copy_onto_its_own_source_goes_byte_by_byte_from_low_to_high_addresses() {
    for distance in [1_usize, 3, 100, 4096, 5000] {
        for (source, dest) in [(0x1000, 0x1000 + distance), (0x3000, 0x3000 - distance)] {
            let guest = Guest::new(16 * PAGE);
            let mut expected: Vec<u8> = (0..16 * PAGE).map(|byte| (byte % 251) as u8).collect();
            guest.write(0, &expected);
            guest.dma().copy(source as u64, dest as u64, 9000).unwrap();
            for byte in 0..9000 {
                expected[dest + byte] = expected[source + byte];
            }
            let mut found = vec![0; expected.len()];
            guest.read(0, &mut found);
            assert!(
                found == expected,
                "distance {distance}, from {source:#x} to {dest:#x}"
            );
        }
    }
}

#[test]
fn an_access_spans_adjacent_mappings_and_not_a_hole() {
    let space = space();
    let (low, high) = (map(&space, 0x10000, PAGE), map(&space, 0x11000, 2 * PAGE));
    map(&space, 0x14000, PAGE);
    let dma = space.dma();
    dma.write(0x10ffe, &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 2];
    low.read_exact_at(&mut bytes, 0xffe).unwrap();
    assert_eq!(bytes, [1, 2]);
    high.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [3, 4]);
    assert_eq!(dma.copy(0x10ffe, 0x12ffe, 4), Err(DmaError::NotMapped(0x13000)));
    dma.copy(0x10ffe, 0x11ffc, 4).unwrap();
    let mut data = [0; 4];
    dma.read(0x11ffc, &mut data).unwrap();
    assert_eq!(data, [1, 2, 3, 4]);
    assert_eq!(dma.check(0x10000, 3 * PAGE, Access::Write), Ok(()));
    assert_eq!(
        dma.check(0x10000, 3 * PAGE + 1, Access::Read),
        Err(DmaError::NotMapped(0x13000))
    );
    assert_eq!(
        dma.check(0xffff, 2, Access::Read),
        Err(DmaError::NotMapped(0xffff))
    );
    assert_eq!(dma.lease(0x10ffe, 4).unwrap_err(), DmaError::NotMapped(0x11000));
}

#[test]
fn an_access_that_is_refused_writes_nothing() {
    let space = space();
    let file = map(&space, 0, PAGE);
    let dma = space.dma();
    assert_eq!(dma.write(0xff0, &[0xff; 32]), Err(DmaError::NotMapped(0x1000)));
    assert_eq!(dma.copy(0, 0xff0, 32), Err(DmaError::NotMapped(0x1000)));
    let mut bytes = [0; PAGE as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; PAGE as usize]);
}

#[test]
fn ranges_that_wrap_or_end_above_2_pow_52_are_refused() {
    let space = space();
    let top = 1 << 52;
    map(&space, top - PAGE, PAGE);
    let dma = space.dma();
    dma.write(top - 4, &[0; 4]).unwrap();
    assert_eq!(dma.write(top - 4, &[0; 5]), Err(DmaError::NotMapped(top)));
    assert_eq!(dma.write(u64::MAX, &[0; 1]), Err(DmaError::NotMapped(u64::MAX)));
    assert_eq!(
        dma.read(u64::MAX - 1, &mut [0; 8]),
        Err(DmaError::NotMapped(u64::MAX - 1))
    );
    assert_eq!(
        dma.copy(top - 4, u64::MAX - 2, 4),
        Err(DmaError::NotMapped(u64::MAX - 2))
    );
    assert_eq!(
        dma.store_u32(u64::MAX, 0, Ordering::Relaxed),
        Err(DmaError::NotMapped(u64::MAX))
    );
    assert_eq!(dma.check(1, u64::MAX, Access::Read), Err(DmaError::NotMapped(1)));
    assert_eq!(
        dma.lease(u64::MAX, COPY_MAX).unwrap_err(),
        DmaError::NotMapped(u64::MAX)
    );
    for (iova, size) in [
        (top, PAGE),
        (top - PAGE, 2 * PAGE),
        (u64::MAX - 4095, PAGE),
        (PAGE, u64::MAX - 4095),
    ] {
        let refused = space
            .map(request(iova, size, Access::Write, memfd(PAGE)))
            .unwrap_err();
        assert_eq!(
            (refused.reason, refused.errno()),
            (MapRefusal::OutOfRange, Errno::INVAL)
        );
    }
}

#[test]
fn a_device_does_not_write_what_is_mapped_for_reads() {
    let space = space();
    let file = memfd(PAGE);
    file.write_all_at(&[9], 0).unwrap();
    space.map(request(0, PAGE, Access::Read, file)).unwrap();
    map(&space, PAGE, PAGE);
    let dma = space.dma();
    assert_eq!(dma.write(0, &[1]), Err(DmaError::Denied(0)));
    assert_eq!(dma.write(PAGE - 1, &[1]), Err(DmaError::Denied(PAGE - 1)));
    assert_eq!(dma.copy(PAGE, 8, 8), Err(DmaError::Denied(8)));
    assert_eq!(dma.store_u32(0, 1, Ordering::Relaxed), Err(DmaError::Denied(0)));
    assert_eq!(dma.lease(0, 1).unwrap_err(), DmaError::Denied(0));
    assert_eq!(dma.check(0, 1, Access::Write), Err(DmaError::Denied(0)));
    dma.copy(0, PAGE, 8).unwrap();
    assert_eq!(dma.load_u32(PAGE, Ordering::Acquire), Ok(9));
}

#[test]
fn memory_without_a_file_is_known_and_not_reached() {
    let space = space();
    let nowhere = MapRequest {
        iova: 0,
        size: PAGE,
        offset: 0,
        access: Access::Write,
        fd: None,
    };
    space.map(nowhere).unwrap();
    assert_eq!(space.dma().write(8, &[1]), Err(DmaError::Unreachable(8)));
    assert_eq!(space.dma().read(8, &mut [1]), Err(DmaError::Unreachable(8)));
    let overlapping = space
        .map(request(0, PAGE, Access::Write, memfd(PAGE)))
        .unwrap_err();
    assert_eq!(overlapping.errno(), Errno::EXIST);
    space.unmap(0, PAGE, shortly()).unwrap();
    assert_eq!(space.dma().write(8, &[1]), Err(DmaError::NotMapped(8)));
}

#[test]
fn a_device_reaches_nothing_before_bus_mastering_is_on() {
    let space = space();
    map(&space, 0, PAGE);
    let dma = space.dma();
    dma.write(0, &[1]).unwrap();
    space.set_bus_master(BusMaster::from(false));
    assert_eq!(dma.write(0, &[1]), Err(DmaError::BusMasterOff));
    assert_eq!(dma.check(0, 1, Access::Read), Err(DmaError::BusMasterOff));
    assert_eq!(dma.lease(0, 1).unwrap_err(), DmaError::BusMasterOff);
    space.set_bus_master(BusMaster::from(true));
    dma.write(0, &[1]).unwrap();
}
