//! The one promise, as far as it is the device's: every page that it writes is marked.

use pagetrail_tracker::{DirtyTracker, Iova, IovaRange, PageSize, ReportBitmap};

use super::rig::{COMP_BASE, DATA, Driver, GENERATOR, MEMORY, Rig, copy, fill};

const PAGE: u64 = 4096;

fn all() -> IovaRange {
    IovaRange::from_len(Iova::new(0), MEMORY).unwrap()
}

/// The numbers of the pages that were marked since the last time.
fn marked(rig: &Rig) -> Vec<u64> {
    let mut bytes = vec![0; ReportBitmap::required_len(all(), PageSize::SIZE_4K).unwrap()];
    let mut report = ReportBitmap::new(all(), PageSize::SIZE_4K, &mut bytes).unwrap();
    rig.memory.tracker().read_and_clear(&mut report).unwrap();
    (0..MEMORY / PAGE)
        .filter(|page| report.is_dirty(Iova::new(page * PAGE)))
        .collect()
}

/// The numbers of the pages that differ and that the driver does not write itself.
fn changed(before: &[u8], after: &[u8]) -> Vec<u64> {
    let pages = |memory| <[u8]>::chunks(memory, PAGE as usize);
    let differs = |number: &u64| {
        let number = *number as usize;
        pages(before).nth(number) != pages(after).nth(number)
    };
    (COMP_BASE / PAGE..MEMORY / PAGE).filter(differs).collect()
}

#[test]
fn every_page_that_the_device_writes_is_marked() {
    let rig = Rig::new(3);
    let mut driver = Driver::enable(&rig, 8);
    for page in 0..MEMORY / PAGE {
        rig.memory.write(page * PAGE + 100, &page.to_le_bytes());
    }
    rig.memory.tracker().start(&[all()], PageSize::SIZE_4K).unwrap();
    let mut before = rig.bytes(0, MEMORY);

    rig.start_generator(200, 11, 0, 0);
    for round in 0..20_u64 {
        let dest = DATA + 0x20_0000 + round * 0x1_1111;
        for descriptor in [
            copy(round * 0x1000, dest, 0x1_8001),
            fill(round + 1, dest + 0x10_0000, 0x7_0003),
        ] {
            assert_eq!(driver.run(&rig, &descriptor).status, 0);
        }
        rig.quiesce();
        let after = rig.bytes(0, MEMORY);
        let marked = marked(&rig);
        let changed = changed(&before, &after);
        assert!(!changed.is_empty());
        for page in changed {
            assert!(marked.contains(&page), "page {page} changed and was not marked");
        }
        before = after;
        rig.device.run();
    }
    rig.clear_control(GENERATOR);
}

#[test]
fn a_page_that_the_device_only_reads_is_not_marked() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 8);
    rig.memory.tracker().start(&[all()], PageSize::SIZE_4K).unwrap();
    assert_eq!(driver.run(&rig, &super::rig::crc(DATA, 0x20_0000)).status, 0);
    assert!(marked(&rig).iter().all(|page| page * PAGE < DATA));
}
