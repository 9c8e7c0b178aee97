//! One thread marks.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use pagetrail_tracker::Iova;

use crate::measure::{Comparison, GIB, Ours, PAGE, TIB, Theirs, compare, scattered_pages, time};
use crate::table::{Requirement, Row, versus};

const PAIRS: usize = 201;
const MIB: u64 = 1 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        versus(
            "mark a page that is dirty already",
            hot(),
            Requirement::AtLeast(8.0),
        ),
        versus(
            "  a write of guest memory and the mark of its page",
            written_and_marked(),
            Requirement::None,
        ),
        versus(
            "mark 1 MiB, dirty already",
            large_dirty(),
            Requirement::AtLeast(40.0),
        ),
        versus("mark 1 MiB, clean", large_clean(), Requirement::AtLeast(15.0)),
        versus(
            "mark random pages of 1 TiB, all clean",
            random_clean(),
            Requirement::AtLeast(1.0),
        ),
        versus(
            "  the same in a tracker that never had a dirty page",
            random_fresh(),
            Requirement::None,
        ),
        off(),
    ]
}

/// Marks one page many times.
fn repeated(mark: impl Fn(u64)) -> f64 {
    const MARKS: u64 = 1 << 15;
    time(MARKS, || {
        for _ in 0..MARKS {
            mark(black_box(5 * PAGE));
        }
    })
}

fn hot() -> Comparison {
    let (ours, theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        PAIRS,
        || repeated(|address| ours.tracker.mark_page(Iova::new(address))),
        || repeated(|address| theirs.mark(address, 1)),
    )
}

/// As a device does it: each mark follows a write of eight bytes of the page, here one of 16 MiB of guest memory.
fn written_and_marked() -> Comparison {
    const PAGES: u64 = 4096;
    const WRITES: u64 = 1 << 15;
    let guest: Vec<AtomicU64> = (0..PAGES * PAGE / 8).map(AtomicU64::new).collect();
    let repeated = |mark: &dyn Fn(u64)| {
        time(WRITES, || {
            for n in 0..WRITES {
                let address = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                guest[address as usize / 8].store(n, Ordering::Relaxed);
                mark(address);
            }
        })
    };
    let (ours, theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        PAIRS,
        || repeated(&|address| ours.tracker.mark_page(Iova::new(address))),
        || repeated(&|address| theirs.mark(address, 1)),
    )
}

fn off() -> Row {
    let (off, on) = (Ours::stopped(16 * GIB), Ours::new(16 * GIB));
    let result = compare(
        PAIRS,
        || repeated(|address| off.tracker.mark_page(Iova::new(address))),
        || repeated(|address| on.tracker.mark_page(Iova::new(address))),
    );
    Row {
        name: "mark while tracking is off (other: a hot mark of ours)".into(),
        result,
        names: ("off", "hot"),
        requirement: Requirement::AtLeast(1.0),
    }
}

fn large_dirty() -> Comparison {
    fn repeated(mark: impl Fn(u64, u64)) -> f64 {
        const MARKS: u64 = 1 << 6;
        time(MARKS, || {
            for _ in 0..MARKS {
                mark(black_box(8 * MIB), MIB);
            }
        })
    }
    let (ours, theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        PAIRS,
        || repeated(|address, len| ours.mark(address, len)),
        || repeated(|address, len| theirs.mark(address, len)),
    )
}

fn large_clean() -> Comparison {
    fn everywhere(mark: impl Fn(u64, u64)) -> f64 {
        time(16 * GIB / MIB, || {
            for window in 0..16 * GIB / MIB {
                mark(black_box(window * MIB), MIB);
            }
        })
    }
    let (mut ours, mut theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        31,
        || {
            ours.read();
            everywhere(|address, len| ours.mark(address, len))
        },
        || {
            theirs.read();
            everywhere(|address, len| theirs.mark(address, len))
        },
    )
}

/// Both begin with a cold cache: what each one's way of clearing left in it is not what is compared.
fn random_clean() -> Comparison {
    let pages = scattered_pages(TIB, 1 << 18);
    let elsewhere: Vec<AtomicU64> = (0..16 << 20).map(AtomicU64::new).collect();
    let cool = || elsewhere.iter().for_each(|word| word.store(1, Ordering::Relaxed));
    let (mut ours, mut theirs) = (Ours::new(TIB), Theirs::new(TIB));
    compare(
        11,
        || {
            ours.read();
            cool();
            each(&pages, |address| ours.tracker.mark_page(Iova::new(address)))
        },
        || {
            theirs.read();
            cool();
            each(&pages, |address| theirs.mark(address, 1))
        },
    )
}

fn random_fresh() -> Comparison {
    let pages = scattered_pages(TIB, 1 << 18);
    compare(
        7,
        || {
            let ours = Ours::new(TIB);
            each(&pages, |address| ours.tracker.mark_page(Iova::new(address)))
        },
        || {
            let theirs = Theirs::new(TIB);
            each(&pages, |address| theirs.mark(address, 1))
        },
    )
}

fn each(pages: &[u64], mark: impl Fn(u64)) -> f64 {
    time(pages.len() as u64, || {
        for &page in pages {
            mark(black_box(page));
        }
    })
}
