//! A process that may not have the address space for a whole log keeps a coarse one of high addresses.
//!
//! Alone in its file: the limit is the whole process's.
#![cfg(not(loom))]

mod common;

use common::{MIB, pages, range};
use pagetrail_tracker::{DirtyTracker, IOVA_END, Iova, IovaRange, PageSize, SoftwareTracker};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than a tracker needs, and much less than it would take.
const LIMIT: u64 = 8 << 30;

#[test]
fn a_page_is_reported_although_there_is_no_room_for_its_bit() {
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: getrlimit(Resource::As).maximum,
    };
    setrlimit(Resource::As, limit).unwrap();

    let tracker = SoftwareTracker::new().unwrap();
    tracker.start(&[IovaRange::ALL], PageSize::SIZE_4K).unwrap();
    let (low, high) = (range(0, 128 * MIB), range(IOVA_END - 128 * MIB, 128 * MIB));
    let read = |memory| {
        pages(memory, |report| {
            tracker.read_and_clear(report).unwrap();
            Ok(())
        })
        .unwrap()
    };

    tracker.mark_page(Iova::new(5 * 4096));
    tracker.mark_page(Iova::new(IOVA_END - 1));
    assert_eq!(read(low), [5], "low addresses are exact");
    assert_eq!(read(high).len(), 32_768, "high ones are a superset");
    assert_eq!(read(high).len(), 0, "which is cleared when it is read as a whole");

    tracker.mark(range(IOVA_END - 4096, 4096));
    assert_eq!(read(range(IOVA_END - 4096, 4096)), [0]);
    assert_eq!(read(high).len(), 32_768, "and kept when only a part is read");
}
