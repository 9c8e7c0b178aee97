//! The tracker on a device in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::model::{Fault, Limits, Machine, Model};
use super::*;
use crate::conformance::{Rig, check_all};
use crate::{DirtyTracker, Iova, IovaRange, ReportBitmap, TrackerError};

const PAGE: u64 = 4096;

struct Bench {
    machine: Arc<Machine>,
    tracker: Arc<DeviceTracker>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let machine = Machine::new(limits);
        let tracker = DeviceTracker::of(Box::new(Model(machine.clone()))).unwrap();
        Self {
            machine,
            tracker: Arc::new(tracker),
        }
    }

    fn start(&self, ranges: &[IovaRange]) {
        let page_size = self.tracker.page_sizes.best_for(PageSize::SIZE_4K);
        self.tracker.start(ranges, page_size).unwrap();
    }

    /// The 4 KiB pages of `range` that are reported, by number.
    fn report(&self, range: IovaRange) -> Result<Vec<u64>, TrackerError> {
        let mut bytes = vec![0; ReportBitmap::required_len(range, PageSize::SIZE_4K).unwrap()];
        let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes).unwrap();
        self.tracker.read_and_clear(&mut report)?;
        let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
        Ok((first..=last)
            .filter(|page| report.is_dirty(Iova::new(page * PAGE)))
            .collect())
    }
}

impl Rig for Bench {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.tracker.clone()
    }

    fn write(&self, range: IovaRange) {
        self.machine.write(range);
    }
}

fn pages(first: u64, count: u64) -> IovaRange {
    IovaRange::of(first * PAGE, (first + count) * PAGE - 1)
}

#[test]
fn a_device_keeps_every_promise_whatever_its_limits() {
    check_all(|| Bench::new(Limits::WIDE));
    let narrow = Limits {
        min_page: 16,
        max_page: 18,
        max_ranges: 1,
        min_space: 25,
        max_space: 40,
    };
    check_all(|| Bench::new(narrow));
}

#[test]
fn the_suite_catches_a_dropped_page_and_a_late_report() {
    for fault in [Fault::DropPage(3), Fault::LateReport] {
        let broken = || {
            let bench = Bench::new(Limits::WIDE);
            bench.machine.set_fault(fault);
            bench
        };
        assert!(
            std::panic::catch_unwind(|| check_all(broken)).is_err(),
            "{fault:?} passes"
        );
    }
}

#[test]
fn page_sizes_are_found_by_trying() {
    let limits = Limits {
        min_page: 14,
        max_page: 16,
        min_space: 34,
        ..Limits::WIDE
    };
    let bench = Bench::new(limits);
    assert_eq!(
        Some(bench.tracker.page_sizes),
        PageSizes::from_mask(0x4000 | 0x8000 | 0x1_0000)
    );
    assert!(bench.machine.logged().is_none(), "a trial leaves nothing running");
    assert!(matches!(
        bench.tracker.start(&[pages(0, 16)], PageSize::SIZE_4K),
        Err(TrackerError::PageSize(_))
    ));
}

#[test]
fn a_device_whose_pages_are_too_large_to_be_of_use_has_no_tracker() {
    for shift in [31, 63] {
        let limits = Limits {
            min_page: shift,
            max_page: shift,
            ..Limits::WIDE
        };
        let refused = DeviceTracker::of(Box::new(Model(Machine::new(limits)))).unwrap_err();
        assert!(matches!(refused, DeviceTrackerError::Trial(_)), "{refused}");
    }
}

#[test]
fn a_read_of_all_there_might_be_takes_few_reads_of_the_device_and_misses_nothing() {
    let all = IovaRange::of(3 * PAGE, (1 << 51) + 5 * PAGE - 1);
    let bench = Bench::new(Limits::WIDE);
    bench.start(&[all]);
    let giant = PageSize::new(1 << 30).unwrap();
    let written = [3, 4, (1 << 18) + 7, 1 << 38, (1 << 39) - 1, (1 << 39) + 4];
    for page in written {
        bench.machine.write(pages(page, 1));
    }
    let mut bytes = vec![0; ReportBitmap::required_len(all, giant).unwrap()];
    let mut report = ReportBitmap::new(all, giant, &mut bytes).unwrap();
    bench.tracker.read_and_clear(&mut report).unwrap();
    assert!(written.iter().all(|page| report.is_dirty(Iova::new(page * PAGE))));
    assert!(report.count() < 12, "{} pages of a gibibyte", report.count());
    assert!(bench.machine.reads() <= 3, "{} reads", bench.machine.reads());
    for part in [pages(3, 1 << 18), pages(1 << 38, 8), pages((1 << 39) - 4, 9)] {
        assert!(bench.report(part).unwrap().is_empty(), "it was read and cleared");
    }
}

#[test]
fn a_device_that_does_not_log_has_no_tracker() {
    let machine = Machine::new(Limits::WIDE);
    machine.set_fault(Fault::StartFails);
    assert!(matches!(
        DeviceTracker::of(Box::new(Model(machine))),
        Err(DeviceTrackerError::Unsupported)
    ));
}

#[test]
fn too_many_ranges_are_merged_with_the_nearest_and_reports_filtered() {
    let bench = Bench::new(Limits {
        max_ranges: 2,
        ..Limits::WIDE
    });
    let asked = [pages(0, 4), pages(5, 4), pages(100, 4)];
    bench.start(&asked);
    let logged = bench.machine.logged().unwrap();
    assert_eq!(logged.ranges(), [pages(0, 9), pages(100, 4)]);
    bench.machine.write(pages(4, 1));
    bench.machine.write(pages(6, 1));
    bench.machine.write(pages(103, 1));
    assert!(matches!(
        bench.report(pages(0, 9)),
        Err(TrackerError::NotStarted(_))
    ));
    assert!(bench.report(pages(0, 4)).unwrap().is_empty());
    assert_eq!(bench.report(pages(5, 4)).unwrap(), [6]);
    assert_eq!(bench.report(pages(100, 4)).unwrap(), [103]);
}

#[test]
fn a_log_of_too_little_is_made_longer() {
    let bench = Bench::new(Limits {
        min_space: 30,
        ..Limits::WIDE
    });
    bench.start(&[pages(7, 1)]);
    let logged = bench.machine.logged().unwrap();
    assert!(logged.contains(&pages(7, 1)) && logged.ranges()[0].len() == 1 << 30);
    bench.machine.write(pages(7, 2));
    assert_eq!(bench.report(pages(7, 1)).unwrap(), [7]);
}

#[test]
fn what_no_log_of_the_device_can_have_is_refused() {
    let bench = Bench::new(Limits {
        max_space: 39,
        ..Limits::WIDE
    });
    let refused = bench.tracker.start(&[IovaRange::ALL], PageSize::SIZE_4K);
    assert!(matches!(refused, Err(TrackerError::Failed(_))));
    assert!(matches!(
        bench.report(pages(0, 1)),
        Err(TrackerError::NotStarted(_))
    ));
}

#[test]
fn after_a_failed_read_every_one_fails_until_the_tracker_is_stopped() {
    let bench = Bench::new(Limits::WIDE);
    bench.start(&[pages(0, 8)]);
    bench.machine.write(pages(1, 1));
    bench.machine.set_fault(Fault::ReportFails);
    assert!(matches!(bench.report(pages(0, 8)), Err(TrackerError::Failed(_))));
    bench.machine.clear_faults();
    assert!(
        matches!(bench.report(pages(0, 8)), Err(TrackerError::Failed(_))),
        "page 1 is lost"
    );
    bench.tracker.stop().unwrap();
    bench.start(&[pages(0, 8)]);
    assert!(bench.report(pages(0, 8)).unwrap().is_empty());
}

#[test]
fn a_tracker_that_goes_ends_the_log() {
    let bench = Bench::new(Limits::WIDE);
    bench.start(&[pages(0, 8)]);
    drop(bench.tracker);
    assert!(bench.machine.logged().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// In pages of 64 KiB, read in parts that begin and end anywhere.
    #[test]
    fn reports_of_any_parts_are_exactly_the_tracked_pages_that_were_written(
        steps in proptest::collection::vec((any::<bool>(), 0..200_u64, 1..60_u64), 1..40),
    ) {
        const PER_TRACKED: u64 = 16;
        let bench = Bench::new(Limits { min_page: 16, max_page: 16, ..Limits::WIDE });
        bench.start(&[pages(0, 272)]);
        let mut due = std::collections::BTreeSet::new();
        for (is_write, first, count) in steps {
            let range = pages(first, count);
            if is_write {
                bench.machine.write(range);
                due.extend(first / PER_TRACKED * PER_TRACKED..(first + count).div_ceil(PER_TRACKED) * PER_TRACKED);
            } else {
                let expected: Vec<u64> = due.extract_if(first..first + count, |_| true).collect();
                prop_assert_eq!(bench.report(range).unwrap(), expected);
            }
        }
    }
}

/// The pages that a reader has an old copy of, once the device that writes all the time has stopped.
fn pages_lost(bench: &Bench) -> Vec<usize> {
    const END: u64 = 64;
    bench.start(&[pages(0, END)]);
    let memory: Vec<AtomicU64> = (0..END).map(|_| AtomicU64::new(0)).collect();
    let mut copies = vec![0; END as usize];
    let stop = AtomicBool::new(false);
    let mut copy = || {
        for page in bench.report(pages(0, END)).unwrap() {
            copies[page as usize] = memory[page as usize].load(Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..20_000 {
                memory[(value % END) as usize].store(value, Ordering::SeqCst);
                bench.machine.write(pages(value % END, 1));
            }
            stop.store(true, Ordering::SeqCst);
        });
        while !stop.load(Ordering::SeqCst) {
            copy();
        }
    });
    copy();
    (0..END as usize)
        .filter(|page| copies[*page] != memory[*page].load(Ordering::SeqCst))
        .collect()
}

#[test]
fn no_page_is_lost_between_writes_and_reads() {
    assert_eq!(pages_lost(&Bench::new(Limits::WIDE)), [0; 0]);
}

#[test]
fn the_race_catches_a_dropped_page() {
    let bench = Bench::new(Limits::WIDE);
    bench.machine.set_fault(Fault::DropPage(9));
    assert_eq!(pages_lost(&bench), [9]);
}
