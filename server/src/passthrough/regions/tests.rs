//! What a client is told of regions, and what its accesses reach.

use super::*;
use crate::passthrough::model::{BAR_SIZE, FakeDevice, area};

const PAGE: u64 = 4096;

fn info(index: u32, argsz: u32) -> Vec<u8> {
    bytes(&RegionInfo {
        argsz,
        flags: 0,
        index,
        cap_offset: 0,
        size: 0,
        offset: 0,
    })
}

fn access(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = bytes(&RegionAccess {
        offset,
        region,
        count,
    });
    payload.extend(data);
    payload
}

fn regions(access: BarAccess) -> (std::sync::Arc<FakeDevice>, Regions) {
    let device = FakeDevice::new();
    let regions = Regions::of(&*device, access).unwrap();
    (device, regions)
}

#[test]
fn the_pages_of_the_msix_table_are_left_out_of_what_can_be_mapped() {
    let (_, regions) = regions(BarAccess::Mapped);
    let bar = regions.region(0).unwrap();
    assert_eq!(bar.areas, [area(0, PAGE), area(2 * PAGE, BAR_SIZE - 2 * PAGE)]);
}

#[test]
fn a_hole_divides_cuts_or_misses_an_area() {
    let all = |hole| without(area(PAGE, 2 * PAGE), hole).collect::<Vec<_>>();
    assert_eq!(all(0..PAGE), [area(PAGE, 2 * PAGE)]);
    assert_eq!(all(0..2 * PAGE), [area(2 * PAGE, PAGE)]);
    assert_eq!(all(2 * PAGE..9 * PAGE), [area(PAGE, PAGE)]);
    assert_eq!(all(0..9 * PAGE), []);
    assert_eq!(all(5 * PAGE..9 * PAGE), [area(PAGE, 2 * PAGE)]);
}

#[test]
fn a_client_gets_the_file_with_the_areas_and_not_before_it_has_room_for_them() {
    let (device, regions) = regions(BarAccess::Mapped);
    let header = size_of::<RegionInfo>();
    let short = regions.region_info(&*device, &info(0, header as u32)).unwrap();
    let (answer, _) = split::<RegionInfo>(&short.payload).unwrap();
    assert!(short.file.is_none() && short.payload.len() == header);
    let flags = RegionFlags::from_bits_truncate(answer.flags);
    assert!(flags.contains(RegionFlags::MMAP) && !flags.contains(RegionFlags::CAPS));

    let whole = regions.region_info(&*device, &info(0, answer.argsz)).unwrap();
    let (answer, capability) = split::<RegionInfo>(&whole.payload).unwrap();
    let flags = RegionFlags::from_bits_truncate(answer.flags);
    assert!(whole.file.is_some() && flags.contains(RegionFlags::MMAP | RegionFlags::CAPS));
    let (capability, areas) = split::<SparseMmap>(capability).unwrap();
    assert_eq!(({ capability.id }, { capability.nr_areas }), (SPARSE_MMAP, 2));
    assert_eq!(areas.len(), 2 * size_of::<SparseArea>());
}

#[test]
fn without_mapping_no_file_leaves_the_process() {
    let (device, regions) = regions(BarAccess::Messages);
    for index in 0..9 {
        let answer = regions.region_info(&*device, &info(index, 4096)).unwrap();
        let (information, _) = split::<RegionInfo>(&answer.payload).unwrap();
        let flags = RegionFlags::from_bits_truncate(information.flags);
        assert!(answer.file.is_none() && !flags.intersects(RegionFlags::MMAP | RegionFlags::CAPS));
    }
}

#[test]
fn what_the_kernel_does_in_parts_is_done_whole() {
    let (device, regions) = regions(BarAccess::Mapped);
    let data: Vec<u8> = (0..100).collect();
    regions.write(&*device, &access(0, 20, 100, &data)).unwrap();
    let reply = regions.read(&*device, &access(0, 20, 100, &[])).unwrap();
    assert_eq!(reply[size_of::<RegionAccess>()..], data);
    let id: [u8; 4] = regions.read_config(&*device, 0).unwrap();
    assert_eq!(id, [0xf4, 0x1a, 0x05, 0x11]);
}

#[test]
fn accesses_outside_of_a_region_and_ill_formed_ones_are_refused() {
    let (device, regions) = regions(BarAccess::Mapped);
    for (region, offset, count) in [
        (0, BAR_SIZE, 1),
        (0, BAR_SIZE - 3, 4),
        (0, u64::MAX, 4),
        (1, 0, 4),
        (9, 0, 4),
        (u32::MAX, 0, 4),
        (0, 0, MAX_DATA_XFER_SIZE as u32 + 1),
    ] {
        let payload = access(region, offset, count, &[]);
        assert_eq!(regions.read(&*device, &payload).unwrap_err(), Errno::INVAL);
    }
    for data in [&[0; 3][..], &[0; 5]] {
        assert!(regions.write(&*device, &access(0, 0, 4, data)).is_err());
    }
    assert!(regions.region_info(&*device, &info(9, 4096)).is_err());
    assert!(regions.region_info(&*device, &info(0, 31)).is_err());
    assert!(regions.device_info(&[0; 15]).is_err());
}
