//! The store-buffering litmus on the machine itself: without the reader's barrier it loses writes, with it none.
//!
//! One thread writes a page whose bit is set already, and marks it; the other one reads and clears the log, and then copies
//! the page. A write is lost if the copy is old and the page is not due any more. The writer's store buffer is kept
//! full of stores to memory that is not in its cache, as a busy device's is, so that its data stays there for a while.
#![cfg(not(loom))]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{MIB, range};
use pagetrail_tracker::{Barrier, DirtyTracker, Fault, Iova, PageSize, ReportBitmap, SoftwareTracker};

/// Losses that are enough to show that the litmus can see them.
const ENOUGH: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);
/// How many times as often the barrier is tried as it took to see those losses without it.
const MARGIN: u64 = 20;
const MIN_TRIES: u64 = 20_000;

#[derive(Debug)]
struct Outcome {
    tries: u64,
    lost: u64,
}

/// One page of guest memory, the log, and the two threads' meeting point.
struct Litmus {
    tracker: SoftwareTracker,
    data: AtomicU64,
    /// The try that the writer may make, and the one that it has made.
    begun: AtomicU64,
    finished: AtomicU64,
    /// Memory for stores that miss the cache.
    elsewhere: Vec<AtomicU64>,
}

impl Litmus {
    fn new(tracker: SoftwareTracker) -> Self {
        tracker.start(&[range(0, MIB)], PageSize::SIZE_4K).unwrap();
        let elsewhere = (0..64 * MIB / 8).map(AtomicU64::new).collect();
        Self {
            tracker,
            data: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            elsewhere,
        }
    }

    /// Tries until `tries` are made or `losses` seen, or patience runs out.
    fn run(&self, tries: u64, losses: u64) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut outcome = Outcome { tries: 0, lost: 0 };
        thread::scope(|scope| {
            scope.spawn(|| self.write());
            while outcome.tries < tries && outcome.lost < losses && Instant::now() < deadline {
                outcome.tries += 1;
                outcome.lost += u64::from(self.is_lost(outcome.tries));
            }
            self.begun.store(u64::MAX, SeqCst);
        });
        outcome
    }

    fn write(&self) {
        let mut random = 1_u64;
        for attempt in 1.. {
            while self.begun.load(SeqCst) < attempt {
                std::hint::spin_loop();
            }
            if self.begun.load(SeqCst) == u64::MAX {
                return;
            }
            for _ in 0..attempt % 24 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.elsewhere[(random >> 33) as usize % self.elsewhere.len()].store(attempt, Relaxed);
            }
            self.data.store(attempt, Relaxed);
            self.tracker.mark_page(Iova::new(0));
            self.finished.store(attempt, SeqCst);
        }
    }

    fn is_lost(&self, attempt: u64) -> bool {
        self.tracker.mark_page(Iova::new(0));
        self.begun.store(attempt, SeqCst);
        for _ in 0..attempt * 7 % 300 {
            std::hint::spin_loop();
        }
        self.read_and_clear();
        let copied = self.data.load(Relaxed);
        while self.finished.load(SeqCst) < attempt {
            std::hint::spin_loop();
        }
        copied != attempt && !self.read_and_clear()
    }

    fn read_and_clear(&self) -> bool {
        let mut bytes = [0; 8];
        let mut report = ReportBitmap::new(range(0, 4096), PageSize::SIZE_4K, &mut bytes).unwrap();
        self.tracker.read_and_clear(&mut report).unwrap();
        report.count() == 1
    }
}

fn without_barrier(barrier: Barrier) -> SoftwareTracker {
    let tracker = SoftwareTracker::builder().barrier(barrier).build().unwrap();
    tracker.set_fault(Fault::ReaderBarrier(Arc::new(|| {})));
    tracker
}

#[test]
fn no_write_is_lost_with_the_barrier_and_some_are_without_it() {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    assert!(
        cores >= 2,
        "THE LITMUS NEEDS TWO CORES and this machine lets us use {cores}: nothing was shown"
    );
    assert_eq!(
        Barrier::detect(),
        Barrier::Asymmetric,
        "no private expedited membarrier: the asymmetric barrier was not tried"
    );

    let control = Litmus::new(without_barrier(Barrier::Asymmetric)).run(u64::MAX, ENOUGH);
    assert!(
        control.lost > 0,
        "without the barrier nothing was lost in {PATIENCE:?} ({control:?}): the litmus is blind"
    );

    let tries = (control.tries * MARGIN).max(MIN_TRIES);
    for barrier in [Barrier::Asymmetric, Barrier::Fences] {
        let outcome =
            Litmus::new(SoftwareTracker::builder().barrier(barrier).build().unwrap()).run(tries, u64::MAX);
        println!("without the barrier: {control:?}; {barrier:?}: {outcome:?}");
        assert!(
            outcome.tries * 2 > control.tries,
            "the machine is too busy to show anything"
        );
        assert_eq!(outcome.lost, 0, "{barrier:?} lost a write");
    }
}
