//! The order of data, bits and reports, in every interleaving that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p pagetrail-tracker --test loom --release`
//!
//! A page is a relaxed atomic; the membarrier is a full fence on both sides. loom explores what at most
//! three threads may do, with a bound on preemptions for the largest models.
#![cfg(loom)]

use std::sync::Arc as StdArc;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use pagetrail_tracker::{DirtyTracker, Fault, Iova, IovaRange, PageSize, ReportBitmap, SoftwareTracker};

/// Two pages whose bits are in different words of one line.
const PAGES: [Iova; 2] = [Iova::new(0), Iova::new(64 << 12)];
const END: u64 = 128 << 12;

fn memory() -> IovaRange {
    IovaRange::from_len(Iova::new(0), END).unwrap()
}

fn idle_tracker() -> SoftwareTracker {
    SoftwareTracker::builder().iova_end(END).build().unwrap()
}

fn tracker() -> SoftwareTracker {
    let tracker = idle_tracker();
    tracker.start(&[memory()], PageSize::SIZE_4K).unwrap();
    tracker
}

/// Whether each of the two pages is reported.
fn read_and_clear(tracker: &SoftwareTracker) -> [bool; 2] {
    let mut bytes = [0; 16];
    let mut report = ReportBitmap::new(memory(), PageSize::SIZE_4K, &mut bytes).unwrap();
    tracker.read_and_clear(&mut report).unwrap();
    PAGES.map(|page| report.is_dirty(page))
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check(model);
}

/// A writer finds the page dirty already while a reader clears it: the reader's copy, or a later report, has the data.
fn rewrite_while_reading(tracker: SoftwareTracker) {
    let (tracker, data) = (Arc::new(tracker), Arc::new(AtomicU64::new(0)));
    tracker.mark_page(PAGES[0]);
    let writer = {
        let (tracker, data) = (tracker.clone(), data.clone());
        thread::spawn(move || {
            data.store(1, Relaxed);
            tracker.mark_page(PAGES[0]);
        })
    };
    read_and_clear(&tracker);
    let copied = data.load(Relaxed);
    writer.join().unwrap();
    assert!(copied == 1 || read_and_clear(&tracker)[0], "a write was lost");
}

#[test]
fn a_page_rewritten_while_it_is_read_is_not_lost() {
    explore(None, || rewrite_while_reading(tracker()));
}

#[test]
fn without_the_readers_barrier_the_model_loses_a_page() {
    let without_barrier = std::panic::catch_unwind(|| {
        explore(None, || {
            let tracker = tracker();
            tracker.set_fault(Fault::ReaderBarrier(StdArc::new(|| {})));
            rewrite_while_reading(tracker);
        });
    });
    let message = *without_barrier
        .expect_err("loom must find the loss")
        .downcast::<&str>()
        .expect("the assertion's text");
    assert_eq!(message, "a write was lost");
}

/// The neighbour has all levels set, so that the reader is on its way down while the writer is on its way up.
#[test]
fn a_clean_page_written_while_its_neighbour_is_read_is_not_lost() {
    explore(None, || {
        let (tracker, data) = (Arc::new(tracker()), Arc::new(AtomicU64::new(0)));
        tracker.mark_page(PAGES[1]);
        let writer = {
            let (tracker, data) = (tracker.clone(), data.clone());
            thread::spawn(move || {
                data.store(1, Relaxed);
                tracker.mark_page(PAGES[0]);
            })
        };
        let reported = read_and_clear(&tracker)[0];
        let copied = data.load(Relaxed);
        writer.join().unwrap();
        assert!(
            (reported && copied == 1) || read_and_clear(&tracker)[0],
            "a write was lost"
        );
    });
}

#[test]
fn two_writers_of_one_line_and_a_reader_lose_nothing() {
    explore(Some(3), || {
        let tracker = Arc::new(tracker());
        let writers = PAGES.map(|page| {
            let tracker = tracker.clone();
            thread::spawn(move || tracker.mark_page(page))
        });
        let first = read_and_clear(&tracker);
        for writer in writers {
            writer.join().unwrap();
        }
        let second = read_and_clear(&tracker);
        assert!(
            (0..2).all(|page| first[page] ^ second[page]),
            "a page was lost or reported twice"
        );
    });
}

#[test]
fn a_page_written_while_tracking_is_switched_on_is_copied_or_reported() {
    explore(Some(3), || {
        let (tracker, data) = (Arc::new(idle_tracker()), Arc::new(AtomicU64::new(0)));
        let writer = {
            let (tracker, data) = (tracker.clone(), data.clone());
            thread::spawn(move || {
                data.store(1, Relaxed);
                tracker.mark_page(PAGES[0]);
            })
        };
        tracker.start(&[memory()], PageSize::SIZE_4K).unwrap();
        let copied = data.load(Relaxed);
        writer.join().unwrap();
        assert!(copied == 1 || read_and_clear(&tracker)[0], "a write was lost");
    });
}

/// The reader clears all levels for its part of a line, and raises them again for the rest.
#[test]
fn a_page_beside_a_report_written_meanwhile_is_not_lost() {
    explore(Some(3), || {
        let tracker = Arc::new(tracker());
        tracker.mark_page(PAGES[0]);
        let writer = {
            let tracker = tracker.clone();
            thread::spawn(move || tracker.mark_page(PAGES[1]))
        };
        let first = IovaRange::from_len(PAGES[0], 1 << 12).unwrap();
        let mut bytes = [0; 8];
        tracker
            .read_and_clear(&mut ReportBitmap::new(first, PageSize::SIZE_4K, &mut bytes).unwrap())
            .unwrap();
        writer.join().unwrap();
        assert!(read_and_clear(&tracker)[1], "a page was lost");
    });
}

/// There is no memory for bits: the whole chunk has one.
#[test]
fn a_write_kept_coarsely_while_it_is_read_is_not_lost() {
    explore(None, || {
        let tracker = SoftwareTracker::builder()
            .iova_end(END)
            .exact_bytes(0)
            .build()
            .unwrap();
        tracker.start(&[memory()], PageSize::SIZE_4K).unwrap();
        rewrite_while_reading(tracker);
    });
}
