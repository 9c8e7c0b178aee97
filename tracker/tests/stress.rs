//! Threads write memory as fast as they can while it is copied elsewhere by the log: the copy ends up the same.
#![cfg(not(loom))]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::{pages, range};
use pagetrail_tracker::{Attachment, Barrier, DeviceKind, Fault, Ioas, Iova, PageSize, SoftwareTracker};

const WRITERS: u64 = 4;
const PAGES: u64 = 2048;
const SPELL: Duration = Duration::from_millis(700);

/// Runs a migration of memory that `WRITERS` devices write, and returns the pages in which source and copy differ.
fn migrate(tracker: SoftwareTracker) -> Vec<u64> {
    let ioas = Ioas::with_software_tracker(Arc::new(tracker));
    let devices: Vec<Attachment> = (0..WRITERS)
        .map(|n| ioas.attach(DeviceKind::Emulated, &format!("device{n}")).unwrap())
        .collect();
    let source: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let copy: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let stopped = AtomicBool::new(false);
    let observer = ioas.observer(&[], PageSize::SIZE_4K).unwrap();
    let pass = || {
        for page in pages(range(0, PAGES * 4096), |bitmap| devices[0].report(bitmap)).unwrap() {
            copy[page as usize].store(source[page as usize].load(Relaxed), Relaxed);
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|seed| {
                let (source, stopped, tracker) = (&source, &stopped, ioas.software_tracker());
                scope.spawn(move || write(seed, source, &tracker, stopped))
            })
            .collect();
        for device in &devices {
            device
                .start(&[range(0, PAGES * 4096)], PageSize::SIZE_4K)
                .unwrap();
        }
        for page in 0..PAGES as usize {
            copy[page].store(source[page].load(Relaxed), Relaxed);
        }
        let end = Instant::now() + SPELL;
        while Instant::now() < end {
            pass();
            let _ = pages(range(0, PAGES * 4096), |bitmap| observer.read_and_clear(bitmap)).unwrap();
        }
        stopped.store(true, Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        pass();
    });
    (0..PAGES)
        .filter(|&page| copy[page as usize].load(Relaxed) != source[page as usize].load(Relaxed))
        .collect()
}

fn write(seed: u64, source: &[AtomicU64], tracker: &SoftwareTracker, stopped: &AtomicBool) {
    let mut random = seed;
    while !stopped.load(Relaxed) {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let page = (random >> 40) % PAGES;
        source[page as usize].fetch_add(1, Relaxed);
        tracker.mark_page(Iova::new(page * 4096));
    }
}

#[test]
fn a_migration_under_load_loses_no_page() {
    for barrier in [Barrier::detect(), Barrier::Fences] {
        let lost = migrate(SoftwareTracker::builder().barrier(barrier).build().unwrap());
        assert!(lost.is_empty(), "{barrier:?} lost the pages {lost:?}");
    }
}

#[test]
fn a_suppressed_page_is_missed() {
    let tracker = SoftwareTracker::new().unwrap();
    tracker.set_fault(Fault::SuppressPage(Iova::new(7 * 4096)));
    assert_eq!(migrate(tracker), [7]);
}

/// Not under load: whether the last spell's writes are few is up to the scheduler.
#[test]
fn a_late_report_misses_what_was_written_last() {
    let tracker = SoftwareTracker::new().unwrap();
    tracker.set_fault(Fault::LateReport);
    let ioas = Ioas::with_software_tracker(Arc::new(tracker));
    let device = ioas.attach(DeviceKind::Emulated, "device").unwrap();
    device.start(&[], PageSize::SIZE_4K).unwrap();
    let memory = range(0, PAGES * 4096);
    ioas.software_tracker().mark_page(Iova::new(4096));
    assert!(pages(memory, |bitmap| device.report(bitmap)).unwrap().is_empty());
    ioas.software_tracker().mark_page(Iova::new(8192));
    assert_eq!(pages(memory, |bitmap| device.report(bitmap)).unwrap(), [1]);
}
