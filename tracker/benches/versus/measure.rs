//! Medians of interleaved pairs, and the two things compared.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::{
    Attachment, DeviceKind, Ioas, Iova, IovaRange, PageSize, ReportBitmap, SoftwareTracker,
};
use vm_memory::bitmap::AtomicBitmap;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// Two things measured in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    /// Median nanoseconds per operation of the first.
    pub(crate) ours: f64,
    /// Median nanoseconds per operation of the second.
    pub(crate) theirs: f64,
    /// How many times faster the first is: the median over the pairs, and its quartiles.
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Measures `ours` and `theirs` in turn, `pairs` times after one round to warm up. Both return nanoseconds per operation.
pub(crate) fn compare(
    pairs: usize,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> Comparison {
    ours();
    theirs();
    let measured: Vec<(f64, f64)> = (0..pairs)
        .map(|pair| {
            // Neither is always the first.
            if pair % 2 == 0 {
                let ours = ours();
                (ours, theirs())
            } else {
                let theirs = theirs();
                (ours(), theirs)
            }
        })
        .collect();
    let ratios = sorted(measured.iter().map(|(ours, theirs)| theirs / ours));
    Comparison {
        ours: quantile(&sorted(measured.iter().map(|pair| pair.0)), 0.5),
        theirs: quantile(&sorted(measured.iter().map(|pair| pair.1)), 0.5),
        ratio: quantile(&ratios, 0.5),
        low: quantile(&ratios, 0.25),
        high: quantile(&ratios, 0.75),
    }
}

/// Nanoseconds per operation of `work`, which does `operations`.
pub(crate) fn time(operations: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    per_operation(start.elapsed(), operations)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and counts are far below 2^52"
)]
pub(crate) fn per_operation(elapsed: Duration, operations: u64) -> f64 {
    elapsed.as_nanos() as f64 / operations as f64
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a few dozen values"
)]
fn quantile(sorted: &[f64], at: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}

/// An address space that is being tracked as a device server does it, and the buffer its reports go into.
pub(crate) struct Ours {
    pub(crate) device: Attachment,
    pub(crate) tracker: Arc<SoftwareTracker>,
    range: IovaRange,
    buffer: Vec<u8>,
}

impl Ours {
    /// `bytes` of guest memory, tracked.
    pub(crate) fn new(bytes: u64) -> Self {
        let ours = Self::stopped(bytes);
        ours.device
            .start(&[ours.range], PageSize::SIZE_4K)
            .expect("a fresh log starts");
        ours
    }

    /// `bytes` of guest memory, not tracked.
    pub(crate) fn stopped(bytes: u64) -> Self {
        let ioas = Ioas::new();
        let device = ioas
            .attach(DeviceKind::Emulated, "bench")
            .expect("an emulated device attaches");
        let range = IovaRange::from_len(Iova::new(0), bytes).expect("a range");
        let len = ReportBitmap::required_len(range, PageSize::SIZE_4K).expect("a length");
        // Written, and so in memory before anything is measured.
        let mut buffer = vec![0xff; len];
        buffer.fill(0);
        Self {
            device,
            tracker: ioas.software_tracker(),
            range,
            buffer,
        }
    }

    pub(crate) fn mark(&self, address: u64, len: u64) {
        self.tracker
            .mark(IovaRange::from_len(Iova::new(address), len).expect("a range"));
    }

    pub(crate) fn mark_each(&self, pages: &[u64]) {
        for &page in pages {
            self.mark(page, 8);
        }
    }

    /// Reads and clears everything into the buffer.
    pub(crate) fn read(&mut self) {
        let mut report =
            ReportBitmap::new(self.range, PageSize::SIZE_4K, &mut self.buffer).expect("a buffer that fits");
        self.device.report(&mut report).expect("a report");
    }
}

/// An `AtomicBitmap` of `bytes`, and a buffer that its words are OR-ed into.
pub(crate) struct Theirs {
    pub(crate) bitmap: AtomicBitmap,
    buffer: Vec<u64>,
}

impl Theirs {
    pub(crate) fn new(bytes: u64) -> Self {
        let page = NonZeroUsize::new(PAGE as usize).expect("not zero");
        let mut buffer = vec![u64::MAX; (bytes / PAGE).div_ceil(64) as usize];
        buffer.fill(0);
        Self {
            bitmap: AtomicBitmap::new(bytes as usize, page),
            buffer,
        }
    }

    pub(crate) fn mark(&self, address: u64, len: u64) {
        self.bitmap.set_addr_range(address as usize, len as usize);
    }

    pub(crate) fn mark_each(&self, pages: &[u64]) {
        for &page in pages {
            self.mark(page, 8);
        }
    }

    /// Reads and clears everything into the buffer.
    pub(crate) fn read(&mut self) {
        for (to, from) in self.buffer.iter_mut().zip(self.bitmap.get_and_reset()) {
            *to |= from;
        }
    }
}

/// `count` different page addresses below `end`, in a random order that is always the same.
pub(crate) fn scattered_pages(end: u64, count: u64) -> Vec<u64> {
    let pages = end / PAGE;
    assert!(pages.is_power_of_two() && count <= pages);
    (0..count).map(|n| shuffled(n, pages.ilog2()) * PAGE).collect()
}

/// A permutation of the numbers of `bits` bits, without a stride that a CPU could predict.
fn shuffled(mut number: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    // Each step can be undone: an odd factor, and a fold of the high half into the low one.
    for factor in [
        0x9e37_79b9_7f4a_7c15_u64,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
    ] {
        number = number.wrapping_mul(factor) & mask;
        number ^= number >> bits.div_ceil(2);
    }
    number
}
