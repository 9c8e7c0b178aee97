//! Trackers of hardware that is not there, and short names.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pagetrail_tracker::{
    Capabilities, DirtyTracker, Iova, IovaRange, LogError, PageSize, PageSizes, PeekSupport, RangeControl,
    RangeSet, RangeUpdate, ReportBitmap, TrackerError, TrackerKind,
};

pub const MIB: u64 = 1 << 20;

pub fn range(start: u64, len: u64) -> IovaRange {
    IovaRange::from_len(Iova::new(start), len).expect("a range")
}

/// The numbers of the 4 KiB pages of `range`, counted from its start, that `read` reports.
pub fn pages(
    range: IovaRange,
    read: impl FnOnce(&mut ReportBitmap<'_>) -> Result<(), LogError>,
) -> Result<Vec<u64>, LogError> {
    let mut bytes = vec![0; ReportBitmap::required_len(range, PageSize::SIZE_4K).expect("a length")];
    let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes).expect("a bitmap");
    read(&mut report)?;
    let iova = |page: u64| Iova::new(range.start().get() + page * 4096);
    Ok((0..range.len().div_ceil(4096))
        .filter(|page| report.is_dirty(iova(*page)))
        .collect())
}

/// A tracker of imaginary hardware: a set of pages, within the limits that its capabilities declare.
#[derive(Debug)]
pub struct FakeTracker {
    kind: TrackerKind,
    capabilities: Capabilities,
    state: Mutex<State>,
    /// Makes every read fail, after it has cleared what it read.
    pub fails: AtomicBool,
    /// Makes every start fail.
    pub refuses: AtomicBool,
    /// Makes every stop fail, after it has forgotten everything.
    pub sticks: AtomicBool,
}

#[derive(Debug)]
struct State {
    started: RangeSet,
    page_size: PageSize,
    dirty: BTreeSet<u64>,
}

impl FakeTracker {
    fn new(kind: TrackerKind, capabilities: Capabilities) -> Arc<Self> {
        let state = State {
            started: RangeSet::default(),
            page_size: PageSize::SIZE_4K,
            dirty: BTreeSet::new(),
        };
        Arc::new(Self {
            kind,
            capabilities,
            state: Mutex::new(state),
            fails: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            sticks: AtomicBool::new(false),
        })
    }

    /// Loses what was written, as a device may that is reset.
    pub fn forget(&self) {
        self.state.lock().expect("no panic").dirty.clear();
    }

    /// An IOMMU that records everything or nothing, as Intel's and AMD's do.
    pub fn global_iommu() -> Arc<Self> {
        Self::iommu(RangeControl::Global)
    }

    /// An IOMMU that is told page by page, as ARM's is.
    pub fn per_pte_iommu() -> Arc<Self> {
        Self::iommu(RangeControl::PerRange)
    }

    fn iommu(control: RangeControl) -> Arc<Self> {
        let capabilities = Capabilities {
            control,
            page_sizes: PageSizes::only(PageSize::SIZE_4K),
            max_ranges: None,
            update: RangeUpdate::Live,
            peek: PeekSupport::Native,
        };
        Self::new(TrackerKind::Iommu, capabilities)
    }

    /// A device with few ranges, large pages, and no change of mind.
    pub fn device() -> Arc<Self> {
        let capabilities = Capabilities {
            control: RangeControl::PerRange,
            page_sizes: PageSizes::from_mask(0x1_0000 | 0x20_0000).expect("two sizes"),
            max_ranges: NonZeroUsize::new(3),
            update: RangeUpdate::Restart,
            peek: PeekSupport::None,
        };
        Self::new(TrackerKind::Device, capabilities)
    }

    /// The device behind the tracker writes `range`.
    pub fn write(&self, range: IovaRange) {
        let mut state = self.state.lock().expect("no panic");
        if state.started.is_empty() {
            return;
        }
        let shift = state.page_size.shift();
        for page in range.start().get() >> shift..=range.last().get() >> shift {
            let bytes = IovaRange::from_len(Iova::new(page << shift), 1 << shift).expect("a page");
            let is_recorded = self.capabilities.control == RangeControl::Global
                || state.started.overlap_with(&bytes).next().is_some();
            if is_recorded {
                state.dirty.insert(page);
            }
        }
    }

    /// The ranges that the tracker runs on.
    pub fn started(&self) -> Vec<IovaRange> {
        self.state.lock().expect("no panic").started.ranges().to_vec()
    }

    fn check(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<RangeSet, TrackerError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(TrackerError::Failed("refused".into()));
        }
        if !self.capabilities.page_sizes.contains(page_size) {
            return Err(TrackerError::PageSize(page_size));
        }
        match self.capabilities.max_ranges {
            Some(max) if ranges.len() > max.get() => Err(TrackerError::TooManyRanges {
                asked: ranges.len(),
                max: max.get(),
            }),
            _ => Ok(RangeSet::disjoint(ranges)?),
        }
    }
}

impl State {
    /// Marks the dirty pages that touch the report's range.
    fn mark(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        if !self.started.contains(&report.range()) {
            return Err(TrackerError::NotStarted(report.range()));
        }
        for page in &self.dirty {
            report.mark(self.bytes(*page));
        }
        Ok(())
    }

    fn bytes(&self, page: u64) -> IovaRange {
        IovaRange::from_len(Iova::new(page << self.page_size.shift()), self.page_size.bytes())
            .expect("a page")
    }

    /// Forgets the pages that lie in one of `ranges` as a whole.
    fn forget(&mut self, ranges: &[IovaRange]) {
        let shift = self.page_size.shift();
        self.dirty.retain(|page| {
            let bytes = IovaRange::from_len(Iova::new(page << shift), 1 << shift).expect("a page");
            !ranges.iter().any(|range| range.contains(&bytes))
        });
    }
}

impl DirtyTracker for FakeTracker {
    fn kind(&self) -> TrackerKind {
        self.kind
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<(), TrackerError> {
        let wanted = self.check(ranges, page_size)?;
        let mut state = self.state.lock().expect("no panic");
        if self.capabilities.update == RangeUpdate::Restart && !state.started.is_empty() {
            return Err(TrackerError::Running);
        }
        if state.started.is_empty() {
            state.page_size = page_size;
            state.dirty.clear();
        }
        let added = wanted.difference(&state.started);
        state.forget(added.ranges());
        state.started = wanted;
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        let mut state = self.state.lock().expect("no panic");
        state.started = RangeSet::default();
        state.dirty.clear();
        if self.sticks.load(Ordering::Relaxed) {
            return Err(TrackerError::Failed("the hardware is gone".into()));
        }
        Ok(())
    }

    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        let mut state = self.state.lock().expect("no panic");
        state.mark(report)?;
        state.forget(&[report.range()]);
        if self.fails.load(Ordering::Relaxed) {
            return Err(TrackerError::Failed("the hardware is gone".into()));
        }
        Ok(())
    }

    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        if self.capabilities.peek == PeekSupport::None {
            return Err(TrackerError::NoPeek);
        }
        self.state.lock().expect("no panic").mark(report)
    }
}
