//! The suite that every [`DirtyTracker`] passes.
//!
//! Each check is named for the promise it keeps, makes a tracker of its own and panics when the promise is broken. What is
//! expected of a tracker follows from its [capabilities](DirtyTracker::capabilities).

use std::sync::Arc;

use crate::{DirtyTracker, Iova, IovaRange, PageSize, PeekSupport, RangeUpdate, ReportBitmap, TrackerError};

/// A tracker, and the device whose writes it records.
pub trait Rig {
    /// The tracker. It is not running at first.
    fn tracker(&self) -> Arc<dyn DirtyTracker>;

    /// The device writes the bytes of `range`, somewhere in the first 64 MiB.
    fn write(&self, range: IovaRange);
}

/// Runs every check, each on a rig of its own.
///
/// # Panics
/// If the tracker breaks a promise.
pub fn check_all<R: Rig>(new_rig: impl Fn() -> R) {
    for check in [
        a_page_written_in_a_started_range_is_reported_once::<R>,
        a_page_written_before_start_is_not_reported,
        a_range_that_was_not_started_is_refused_and_loses_nothing,
        a_report_of_a_part_leaves_the_rest_due,
        a_report_never_clears_bits_of_the_callers_bitmap,
        holes_in_a_started_range_are_reported_clean,
        a_report_in_any_page_size_covers_what_was_written,
        a_page_partly_inside_a_report_stays_due,
        what_is_peeked_stays_due,
        changed_ranges_keep_what_is_due_or_are_refused,
        a_stopped_tracker_forgets,
        too_many_ranges_are_refused_whole,
        overlapping_ranges_are_refused,
    ] {
        check(&new_rig());
    }
}

const MIB: u64 = 1 << 20;

fn range(start: u64, len: u64) -> IovaRange {
    IovaRange::from_len(Iova::new(start), len).expect("a range")
}

/// A rig whose tracker runs on `ranges`, in pages of the size returned.
fn start<R: Rig>(rig: &R, ranges: &[IovaRange]) -> PageSize {
    let page_size = rig
        .tracker()
        .capabilities()
        .page_sizes
        .best_for(PageSize::SIZE_4K);
    rig.tracker()
        .start(ranges, page_size)
        .expect("the tracker starts");
    page_size
}

/// The numbers of the pages of `page_size` that are reported in `range`.
fn report<R: Rig>(rig: &R, range: IovaRange, page_size: PageSize) -> Vec<u64> {
    read(range, page_size, |bitmap| rig.tracker().read_and_clear(bitmap)).expect("the tracker is read")
}

fn read(
    range: IovaRange,
    page_size: PageSize,
    read: impl FnOnce(&mut ReportBitmap<'_>) -> Result<(), TrackerError>,
) -> Result<Vec<u64>, TrackerError> {
    let mut bytes = vec![0; ReportBitmap::required_len(range, page_size).expect("a length")];
    let mut bitmap = ReportBitmap::new(range, page_size, &mut bytes).expect("a bitmap");
    read(&mut bitmap)?;
    let pages = 0..=(range.len() - 1) / page_size.bytes();
    let iova = |page: u64| Iova::new(range.start().get() + page * page_size.bytes());
    Ok(pages.filter(|page| bitmap.is_dirty(iova(*page))).collect())
}

fn a_page_written_in_a_started_range_is_reported_once<R: Rig>(rig: &R) {
    let page = start(rig, &[range(0, 64 * MIB)]);
    rig.write(range(3 * page.bytes() + 5, 1));
    rig.write(range(9 * page.bytes() - 1, 2));
    assert_eq!(report(rig, range(0, 64 * MIB), page), [3, 8, 9]);
    assert!(report(rig, range(0, 64 * MIB), page).is_empty());
    rig.write(range(3 * page.bytes(), 1));
    assert_eq!(
        report(rig, range(0, 64 * MIB), page),
        [3],
        "a page is due again when it is written again"
    );
}

fn a_page_written_before_start_is_not_reported<R: Rig>(rig: &R) {
    rig.write(range(0, 1));
    let page = start(rig, &[range(0, MIB)]);
    assert!(report(rig, range(0, MIB), page).is_empty());
}

fn a_range_that_was_not_started_is_refused_and_loses_nothing<R: Rig>(rig: &R) {
    let all = range(4 * MIB, 4 * MIB);
    let not_started = |outside| {
        read(outside, PageSize::SIZE_4K, |bitmap| {
            rig.tracker().read_and_clear(bitmap)
        })
    };
    assert!(
        matches!(not_started(all), Err(TrackerError::NotStarted(_))),
        "nothing is started"
    );
    let page = start(rig, &[all]);
    rig.write(range(4 * MIB, 1));
    for outside in [
        range(0, MIB),
        range(0, 5 * MIB),
        range(4 * MIB, 5 * MIB),
        range(3 * MIB, 6 * MIB),
    ] {
        assert!(
            matches!(not_started(outside), Err(TrackerError::NotStarted(_))),
            "{outside} is not started"
        );
    }
    assert_eq!(report(rig, all, page), [0]);
}

fn a_report_of_a_part_leaves_the_rest_due<R: Rig>(rig: &R) {
    let page = start(rig, &[range(0, 64 * MIB)]);
    let half = 32 * MIB / page.bytes();
    for number in [half - 1, half, half + 1] {
        rig.write(range(number * page.bytes(), 1));
    }
    assert_eq!(report(rig, range(32 * MIB, page.bytes()), page), [0]);
    assert_eq!(report(rig, range(0, 64 * MIB), page), [half - 1, half + 1]);
}

fn a_report_never_clears_bits_of_the_callers_bitmap<R: Rig>(rig: &R) {
    let all = range(0, 4 * MIB);
    let page = start(rig, &[all]);
    let mut bytes = vec![0xa5; ReportBitmap::required_len(all, page).expect("a length")];
    let mut bitmap = ReportBitmap::new(all, page, &mut bytes).expect("a bitmap");
    rig.tracker()
        .read_and_clear(&mut bitmap)
        .expect("the tracker is read");
    let pages = (all.len() / page.bytes()) as usize;
    for number in 0..pages.min(64) {
        assert_eq!(bytes[number / 8] >> (number % 8) & 1, 0xa5 >> (number % 8) & 1);
    }
}

fn holes_in_a_started_range_are_reported_clean<R: Rig>(rig: &R) {
    let page = start(rig, &[range(0, 64 * MIB)]);
    rig.write(range(0, 1));
    rig.write(range(63 * MIB, 1));
    assert!(report(rig, range(2 * MIB, 60 * MIB), page).is_empty());
    assert_eq!(
        report(rig, range(0, 64 * MIB), page),
        [0, 63 * MIB / page.bytes()]
    );
}

fn a_report_in_any_page_size_covers_what_was_written<R: Rig>(rig: &R) {
    let tracked = start(rig, &[range(0, 64 * MIB)]);
    for shift in [9, 10, 12, 13, 16, 21, 30] {
        let page = PageSize::new(1 << shift).expect("a power of two");
        for (at, len) in [
            (8192, 1),
            (4 * MIB + 1, 3 * tracked.bytes()),
            (2 * MIB - 1, 2),
            (40 * MIB, MIB + 17),
        ] {
            let written = range(at, len);
            rig.write(written);
            let found = report(rig, range(0, 64 * MIB), page);
            // Everything tracked as one is as dirty as what was written of it.
            let first = at & !(tracked.bytes() - 1);
            let last = (at + len - 1) | (tracked.bytes() - 1);
            let expected: Vec<u64> = (first / page.bytes()..=last / page.bytes()).collect();
            assert_eq!(found, expected, "{written} in pages of {page}");
        }
    }
}

fn a_page_partly_inside_a_report_stays_due<R: Rig>(rig: &R) {
    let page = start(rig, &[range(0, 4 * MIB)]);
    let sector = PageSize::new(512).expect("a power of two");
    rig.write(range(page.bytes(), page.bytes()));
    assert_eq!(report(rig, range(page.bytes() + 512, 512), sector), [0]);
    assert_eq!(
        report(rig, range(0, 4 * MIB), page),
        [1],
        "the rest of the page was not reported"
    );
    assert!(report(rig, range(0, 4 * MIB), page).is_empty());
}

fn what_is_peeked_stays_due<R: Rig>(rig: &R) {
    let all = range(0, 4 * MIB);
    let page = start(rig, &[all]);
    rig.write(range(page.bytes(), 1));
    let peeked = read(all, page, |bitmap| rig.tracker().peek(bitmap));
    match rig.tracker().capabilities().peek {
        PeekSupport::Native => assert_eq!(peeked.expect("a peek"), [1]),
        PeekSupport::None => assert!(matches!(peeked, Err(TrackerError::NoPeek))),
    }
    assert_eq!(report(rig, all, page), [1]);
}

fn changed_ranges_keep_what_is_due_or_are_refused<R: Rig>(rig: &R) {
    let (low, high) = (range(0, 4 * MIB), range(8 * MIB, 4 * MIB));
    let page = start(rig, &[low]);
    rig.write(range(0, 1));
    rig.write(range(8 * MIB, 1));
    let changed = rig.tracker().start(&[low, high], page);
    if rig.tracker().capabilities().update == RangeUpdate::Restart {
        assert!(matches!(changed, Err(TrackerError::Running)));
        assert_eq!(report(rig, low, page), [0]);
        return;
    }
    changed.expect("ranges are added");
    assert!(
        report(rig, high, page).is_empty(),
        "what was not started before begins clean"
    );
    assert_eq!(report(rig, low, page), [0]);
    rig.write(range(8 * MIB, 1));
    rig.tracker().start(&[high], page).expect("ranges are taken away");
    assert_eq!(report(rig, high, page), [0]);
}

fn a_stopped_tracker_forgets<R: Rig>(rig: &R) {
    let page = start(rig, &[range(0, 4 * MIB)]);
    rig.write(range(0, 1));
    rig.tracker().stop().expect("the tracker stops");
    rig.tracker().stop().expect("a stopped tracker stays stopped");
    rig.write(range(page.bytes(), 1));
    let page = start(rig, &[range(0, 4 * MIB)]);
    assert!(report(rig, range(0, 4 * MIB), page).is_empty());
}

fn too_many_ranges_are_refused_whole<R: Rig>(rig: &R) {
    let Some(max) = rig.tracker().capabilities().max_ranges else {
        return;
    };
    let ranges: Vec<IovaRange> = (0..=max.get() as u64).map(|n| range(2 * n * MIB, MIB)).collect();
    let page_size = rig
        .tracker()
        .capabilities()
        .page_sizes
        .best_for(PageSize::SIZE_4K);
    assert!(matches!(
        rig.tracker().start(&ranges, page_size),
        Err(TrackerError::TooManyRanges { .. })
    ));
    let untouched = read(ranges[0], page_size, |bitmap| {
        rig.tracker().read_and_clear(bitmap)
    });
    assert!(matches!(untouched, Err(TrackerError::NotStarted(_))));
}

fn overlapping_ranges_are_refused<R: Rig>(rig: &R) {
    let page_size = rig
        .tracker()
        .capabilities()
        .page_sizes
        .best_for(PageSize::SIZE_4K);
    let overlapping = [range(0, 2 * MIB), range(MIB, 2 * MIB)];
    assert!(matches!(
        rig.tracker().start(&overlapping, page_size),
        Err(TrackerError::Overlap(_))
    ));
}
