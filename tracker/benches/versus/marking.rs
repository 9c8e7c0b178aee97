//! One thread marks.

use std::hint::black_box;

use crate::measure::{Comparison, GIB, Ours, PAGE, TIB, Theirs, compare, scattered_pages, time};
use crate::table::{Requirement, Row, versus};

const PAIRS: usize = 31;
const MIB: u64 = 1 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        versus(
            "mark a page that is dirty already",
            hot(),
            Requirement::AtLeast(8.0),
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

/// Marks eight bytes at `address` many times.
fn repeated(mark: impl Fn(u64, u64)) -> f64 {
    const MARKS: u64 = 1 << 20;
    time(MARKS, || {
        for _ in 0..MARKS {
            mark(black_box(5 * PAGE), 8);
        }
    })
}

fn hot() -> Comparison {
    let (ours, theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        PAIRS,
        || repeated(|address, len| ours.mark(address, len)),
        || repeated(|address, len| theirs.mark(address, len)),
    )
}

fn off() -> Row {
    let (off, on) = (Ours::stopped(16 * GIB), Ours::new(16 * GIB));
    let result = compare(
        PAIRS,
        || repeated(|address, len| off.mark(address, len)),
        || repeated(|address, len| on.mark(address, len)),
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
        const MARKS: u64 = 1 << 10;
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
        PAIRS,
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

fn random_clean() -> Comparison {
    let pages = scattered_pages(TIB, 1 << 18);
    let (mut ours, mut theirs) = (Ours::new(TIB), Theirs::new(TIB));
    compare(
        11,
        || {
            ours.read();
            each(&pages, |address| ours.mark(address, 8))
        },
        || {
            theirs.read();
            each(&pages, |address| theirs.mark(address, 8))
        },
    )
}

fn random_fresh() -> Comparison {
    let pages = scattered_pages(TIB, 1 << 18);
    compare(
        7,
        || {
            let ours = Ours::new(TIB);
            each(&pages, |address| ours.mark(address, 8))
        },
        || {
            let theirs = Theirs::new(TIB);
            each(&pages, |address| theirs.mark(address, 8))
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
