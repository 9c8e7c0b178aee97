//! Any sequence of starts, stops, writes and reports agrees with a plain set of pages, exactly.
#![cfg(not(loom))]

mod common;

use std::collections::BTreeSet;

use common::range;
use pagetrail_tracker::{
    Attachment, DeviceKind, Ioas, Iova, IovaRange, LogError, Observer, PageSize, RangeSet, ReportBitmap,
};
use proptest::prelude::*;

const DEVICES: usize = 3;
/// Enough for marks of whole chunks of the log, which are 128 MiB, on either side of a boundary.
const SPACE: u64 = 300 << 20;

#[derive(Clone, Debug)]
enum Step {
    Start {
        device: usize,
        ranges: Vec<IovaRange>,
    },
    Stop {
        device: usize,
    },
    Reattach {
        device: usize,
    },
    Observe {
        ranges: Vec<IovaRange>,
    },
    Unobserve,
    Write(IovaRange),
    Report {
        device: usize,
        range: IovaRange,
        page_size: PageSize,
    },
    ReadObserver {
        range: IovaRange,
        page_size: PageSize,
    },
    PeekObserver {
        range: IovaRange,
        page_size: PageSize,
    },
}

/// What one reader has started and is to be told.
#[derive(Default)]
struct Reader {
    ranges: RangeSet,
    due: BTreeSet<u64>,
}

impl Reader {
    fn extend(&mut self, ranges: &RangeSet) {
        let added = ranges.difference(&self.ranges);
        self.due.retain(|page| !added.contains(&page_bytes(*page)));
        self.ranges = self.ranges.union(ranges);
    }

    /// The bits of a report, in the order of its pages.
    fn bits(&self, range: IovaRange, page_size: PageSize) -> Vec<bool> {
        let mut bits = vec![false; range.len().div_ceil(page_size.bytes()) as usize];
        let first = range.start().get() / 4096;
        for page in self.due.range(first..=range.last().get() / 4096) {
            let Some(part) = page_bytes(*page).intersection(&range) else {
                continue;
            };
            let bit = |iova: Iova| ((iova.get() - range.start().get()) / page_size.bytes()) as usize;
            bits[bit(part.start())..=bit(part.last())].fill(true);
        }
        bits
    }

    fn clear(&mut self, range: IovaRange) {
        self.due.retain(|page| !range.contains(&page_bytes(*page)));
    }
}

fn page_bytes(page: u64) -> IovaRange {
    range(page * 4096, 4096)
}

/// The address space under test beside its model.
struct Pair {
    ioas: std::sync::Arc<Ioas>,
    devices: Vec<Attachment>,
    observer: Option<Observer>,
    started: [bool; DEVICES],
    group: Option<Reader>,
    watching: Option<Reader>,
}

impl Pair {
    fn new() -> Self {
        let ioas = Ioas::new();
        let devices = (0..DEVICES).map(|n| attach(&ioas, n)).collect();
        Self {
            ioas,
            devices,
            observer: None,
            started: [false; DEVICES],
            group: None,
            watching: None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start { device, ranges } => self.start(device, &ranges),
            Step::Stop { device } => {
                assert_eq!(self.devices[device].stop().is_ok(), self.started[device]);
                self.stopped(device);
            }
            Step::Reattach { device } => {
                self.devices[device] = attach(&self.ioas, device);
                self.stopped(device);
            }
            Step::Observe { ranges } => {
                // The old one goes first.
                self.observer = None;
                self.observer = Some(self.ioas.observer(&ranges, PageSize::SIZE_4K).unwrap());
                self.watching = Some(Reader {
                    ranges: RangeSet::disjoint(&ranges).unwrap(),
                    due: BTreeSet::new(),
                });
            }
            Step::Unobserve => (self.observer, self.watching) = (None, None),
            Step::Write(range) => self.write(range),
            Step::Report {
                device,
                range,
                page_size,
            } => {
                let model = self.group.as_mut().filter(|_| self.started[device]);
                compare(model, range, page_size, Clearing::Yes, |bitmap| {
                    self.devices[device].report(bitmap)
                });
            }
            Step::ReadObserver { range, page_size } => {
                let Some(observer) = &self.observer else { return };
                compare(
                    self.watching.as_mut(),
                    range,
                    page_size,
                    Clearing::Yes,
                    |bitmap| observer.read_and_clear(bitmap),
                );
            }
            Step::PeekObserver { range, page_size } => {
                let Some(observer) = &self.observer else { return };
                compare(self.watching.as_mut(), range, page_size, Clearing::No, |bitmap| {
                    observer.peek(bitmap)
                });
            }
        }
    }

    fn start(&mut self, device: usize, ranges: &[IovaRange]) {
        let result = self.devices[device].start(ranges, PageSize::SIZE_4K);
        if self.started[device] {
            return assert!(matches!(result, Err(LogError::AlreadyStarted)));
        }
        result.unwrap();
        self.started[device] = true;
        self.group
            .get_or_insert_default()
            .extend(&RangeSet::disjoint(ranges).unwrap());
    }

    fn stopped(&mut self, device: usize) {
        self.started[device] = false;
        if self.started == [false; DEVICES] {
            self.group = None;
        }
    }

    fn write(&mut self, range: IovaRange) {
        self.ioas.software_tracker().mark(range);
        for reader in [&mut self.group, &mut self.watching].into_iter().flatten() {
            reader
                .due
                .extend(range.start().get() / 4096..=range.last().get() / 4096);
        }
    }
}

fn attach(ioas: &std::sync::Arc<Ioas>, number: usize) -> Attachment {
    ioas.attach(DeviceKind::Emulated, &format!("device{number}"))
        .unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Clearing {
    Yes,
    No,
}

/// Reads both and compares every bit, those that the caller had set included.
fn compare(
    model: Option<&mut Reader>,
    range: IovaRange,
    page_size: PageSize,
    clearing: Clearing,
    read: impl FnOnce(&mut ReportBitmap<'_>) -> Result<(), LogError>,
) {
    let mut bytes = vec![0; ReportBitmap::required_len(range, page_size).unwrap()];
    bytes[0] = 1;
    let result = read(&mut ReportBitmap::new(range, page_size, &mut bytes).unwrap());
    let Some(model) = model else {
        return assert!(matches!(result, Err(LogError::NotStarted)));
    };
    if !model.ranges.contains(&range) {
        return assert!(matches!(result, Err(LogError::RangeNotStarted(_))));
    }
    result.unwrap();
    let mut expected = model.bits(range, page_size);
    expected[0] = true;
    expected.resize(bytes.len() * 8, false);
    let found: Vec<bool> = (0..bytes.len() * 8)
        .map(|bit| bytes[bit / 8] >> (bit % 8) & 1 != 0)
        .collect();
    assert!(
        found == expected,
        "{range} in pages of {page_size}: a report differs from the model"
    );
    if clearing == Clearing::Yes {
        model.clear(range);
    }
}

fn any_range() -> impl Strategy<Value = IovaRange> {
    let len = prop_oneof![4 => 1..20_000_u64, 2 => 1..4_000_000_u64, 1 => 1..SPACE];
    (0..SPACE, len).prop_map(|(start, len)| range(start, len.min(SPACE - start)))
}

/// A few ranges of whole pages with holes between them.
fn start_ranges() -> impl Strategy<Value = Vec<IovaRange>> {
    proptest::collection::btree_set(0..SPACE / 4096, 2..8).prop_map(|bounds| {
        let bounds: Vec<u64> = bounds.into_iter().collect();
        bounds
            .chunks_exact(2)
            .map(|pair| range(pair[0] * 4096, (pair[1] - pair[0]) * 4096))
            .collect()
    })
}

fn page_size() -> impl Strategy<Value = PageSize> {
    (9..22_u32).prop_map(|shift| PageSize::new(1 << shift).unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES;
    prop_oneof![
        3 => (device.clone(), start_ranges()).prop_map(|(device, ranges)| Step::Start { device, ranges }),
        3 => device.clone().prop_map(|device| Step::Start { device, ranges: vec![range(0, SPACE)] }),
        1 => device.clone().prop_map(|device| Step::Stop { device }),
        1 => device.clone().prop_map(|device| Step::Reattach { device }),
        1 => start_ranges().prop_map(|ranges| Step::Observe { ranges }),
        1 => Just(Step::Unobserve),
        10 => any_range().prop_map(Step::Write),
        8 => (device, any_range(), page_size())
            .prop_map(|(device, range, page_size)| Step::Report { device, range, page_size }),
        2 => (any_range(), page_size()).prop_map(|(range, page_size)| Step::ReadObserver { range, page_size }),
        1 => (any_range(), page_size()).prop_map(|(range, page_size)| Step::PeekObserver { range, page_size }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_report_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step);
        }
    }
}
