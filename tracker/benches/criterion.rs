//! The hot paths under criterion, for following a change; `versus` is the comparison with `AtomicBitmap`.

#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use pagetrail_tracker::{DirtyTracker, Iova, IovaRange, PageSize, ReportBitmap, SoftwareTracker};
use vm_memory::bitmap::AtomicBitmap;

const GUEST: u64 = 16 << 30;

fn tracker() -> SoftwareTracker {
    let tracker = SoftwareTracker::new().expect("a tracker");
    tracker.start(&[guest()], PageSize::SIZE_4K).expect("starts");
    tracker
}

fn guest() -> IovaRange {
    range(0, GUEST)
}

fn range(start: u64, len: u64) -> IovaRange {
    IovaRange::from_len(Iova::new(start), len).expect("a range")
}

fn marks(criterion: &mut Criterion) {
    let (tracker, atomic) = (
        tracker(),
        AtomicBitmap::new(GUEST as usize, NonZeroUsize::new(4096).expect("not zero")),
    );
    for (name, len) in [("mark/8 bytes", 8), ("mark/1 MiB", 1 << 20)] {
        let mut group = criterion.benchmark_group(name);
        group.bench_function("pagetrail", |b| {
            b.iter(|| tracker.mark(black_box(range(0x5000, len))));
        });
        group.bench_function("AtomicBitmap", |b| {
            b.iter(|| atomic.set_addr_range(black_box(0x5000), len as usize));
        });
        group.finish();
    }
}

fn reads(criterion: &mut Criterion) {
    let (tracker, atomic) = (
        tracker(),
        AtomicBitmap::new(GUEST as usize, NonZeroUsize::new(4096).expect("not zero")),
    );
    let mut buffer = vec![0; ReportBitmap::required_len(guest(), PageSize::SIZE_4K).expect("a length")];
    let mut group = criterion.benchmark_group("read/16 GiB, nothing dirty");
    group.bench_function("pagetrail", |b| {
        b.iter(|| {
            let mut report =
                ReportBitmap::new(guest(), PageSize::SIZE_4K, &mut buffer).expect("a buffer that fits");
            tracker.read_and_clear(&mut report).expect("reads");
        });
    });
    group.bench_function("AtomicBitmap", |b| b.iter(|| atomic.get_and_reset()));
    group.finish();
}

criterion_group!(benches, marks, reads);
criterion_main!(benches);
