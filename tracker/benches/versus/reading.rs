//! One thread reads and clears.

use pagetrail_tracker::{DeviceKind, Ioas, Iova, IovaRange, PageSize, ReportBitmap};

use crate::measure::{Comparison, GIB, Ours, PAGE, TIB, Theirs, compare, scattered_pages, time};
use crate::table::{Requirement, Row, versus};

const FEW: u64 = 1000;
const MIB: u64 = 1 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        versus(
            "read and clear 1 TiB with 1000 dirty pages into a bitmap",
            few_of_many(Theirs::read),
            Requirement::AtLeast(300.0),
        ),
        versus(
            "  against its get_and_reset alone",
            few_of_many(reset_only),
            Requirement::None,
        ),
        versus(
            "read and clear 16 GiB, every page dirty, into a bitmap",
            all(Theirs::read),
            Requirement::AtLeast(1.0),
        ),
        versus(
            "  against its get_and_reset alone",
            all(reset_only),
            Requirement::None,
        ),
        growth(16),
        growth(1024),
        memory(),
    ]
}

fn reset_only(theirs: &mut Theirs) {
    std::hint::black_box(theirs.bitmap.get_and_reset());
}

fn few_of_many(read: impl Fn(&mut Theirs)) -> Comparison {
    let pages = scattered_pages(TIB, FEW);
    let (mut ours, mut theirs) = (Ours::new(TIB), Theirs::new(TIB));
    compare(
        11,
        || read_few(&mut ours, &pages),
        || {
            theirs.mark_each(&pages);
            time(1, || read(&mut theirs))
        },
    )
}

fn read_few(ours: &mut Ours, pages: &[u64]) -> f64 {
    ours.mark_each(pages);
    time(1, || ours.read())
}

fn all(read: impl Fn(&mut Theirs)) -> Comparison {
    let (mut ours, mut theirs) = (Ours::new(16 * GIB), Theirs::new(16 * GIB));
    compare(
        51,
        || {
            mark_all(|address, len| ours.mark(address, len));
            time(1, || ours.read())
        },
        || {
            mark_all(|address, len| theirs.mark(address, len));
            time(1, || read(&mut theirs))
        },
    )
}

/// Marks 16 GiB as a device would that writes a MiB at a time.
fn mark_all(mark: impl Fn(u64, u64)) {
    for mib in 0..16 * GIB / MIB {
        mark(mib * MIB, MIB);
    }
}

/// The same number of dirty pages in a larger guest, against 1 GiB.
fn growth(gib: u64) -> Row {
    let (small, large) = (scattered_pages(GIB, FEW), scattered_pages(gib * GIB, FEW));
    let (mut in_small, mut in_large) = (Ours::new(GIB), Ours::new(gib * GIB));
    Row {
        name: format!("read and clear 1000 dirty pages in {gib} GiB (other: in 1 GiB)"),
        result: compare(
            101,
            || read_few(&mut in_large, &large),
            || read_few(&mut in_small, &small),
        ),
        names: ("large", "1 GiB"),
        requirement: Requirement::SlowerByLessThan(4.0),
    }
}

/// What an address space of 1 TiB takes that is tracked, clean, and read from end to end, 32 GiB at a time.
fn memory() -> Row {
    const WINDOW: u64 = 32 * GIB;
    let mut buffer = vec![1_u8; (WINDOW / PAGE / 8) as usize];
    let before = resident_bytes();
    let ioas = Ioas::new();
    let device = ioas.attach(DeviceKind::Emulated, "bench").expect("attaches");
    device.start(&[], PageSize::SIZE_4K).expect("starts");
    for window in 0..TIB / WINDOW {
        let range = IovaRange::from_len(Iova::new(window * WINDOW), WINDOW).expect("a range");
        let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut buffer).expect("a bitmap");
        device.report(&mut report).expect("a report");
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = resident_bytes().saturating_sub(before) as f64;
    Row {
        name: "memory of a 1 TiB tracker with nothing dirty".into(),
        result: Comparison {
            ours: bytes,
            theirs: 0.0,
            ratio: 0.0,
            low: 0.0,
            high: 0.0,
        },
        names: ("bytes", ""),
        requirement: Requirement::BytesBelow(f64::from(4 << 20)),
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/smaps_rollup").expect("procfs");
    let line = status
        .lines()
        .find(|line| line.starts_with("Rss:"))
        .expect("an Rss line");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number of KiB");
    kib * 1024
}
