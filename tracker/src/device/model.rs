//! A device that logs its DMA, in memory: with the limits of mlx5's driver, and the kernel's checks before it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use super::log::DmaLog;
use crate::{IovaRange, PageSize, RangeSet};

/// What the device can do. All sizes are logarithms to base two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min_page: u32,
    pub(super) max_page: u32,
    pub(super) max_ranges: usize,
    pub(super) min_space: u32,
    pub(super) max_space: u32,
}

impl Limits {
    pub(super) const WIDE: Self = Self {
        min_page: 12,
        max_page: 21,
        max_ranges: 256,
        min_space: 12,
        max_space: 52,
    };
}

/// A way to break the promise, or to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This page, of the tracked size, is never reported.
    DropPage(u64),
    /// What is found comes with the next report.
    LateReport,
    /// Reading fails, after the log was cleared.
    ReportFails,
    /// A log cannot be started.
    StartFails,
}

#[derive(Debug)]
pub(super) struct Machine {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    log: Option<Log>,
    starts: usize,
    reads: usize,
    late: BTreeSet<u64>,
}

#[derive(Debug)]
struct Log {
    ranges: RangeSet,
    page_size: PageSize,
    dirty: BTreeSet<u64>,
}

impl Machine {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let state = Mutex::new(State::default());
        Arc::new(Self { limits, state })
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The device writes `range`.
    pub(super) fn write(&self, range: IovaRange) {
        let mut state = self.lock();
        let Some(log) = &mut state.log else { return };
        let shift = log.page_size.shift();
        for page in range.start().get() >> shift..=range.last().get() >> shift {
            let bytes = IovaRange::of(page << shift, ((page + 1) << shift) - 1);
            if log.ranges.overlap_with(&bytes).next().is_some() {
                log.dirty.insert(page);
            }
        }
    }

    /// How often it was asked what it has logged.
    pub(super) fn reads(&self) -> usize {
        self.lock().reads
    }

    /// What the device logs, if it does.
    pub(super) fn logged(&self) -> Option<RangeSet> {
        self.lock().log.as_ref().map(|log| log.ranges.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has failed")
    }
}

#[derive(Debug)]
pub(super) struct Model(pub(super) Arc<Machine>);

impl DmaLog for Model {
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> io::Result<PageSize> {
        let limits = self.0.limits;
        let mut state = self.0.lock();
        if state.faults.contains(&Fault::StartFails) {
            return Err(Errno::NOTTY.into());
        }
        if ranges.len() > limits.max_ranges {
            return Err(Errno::TOOBIG.into());
        }
        let is_aligned = |bytes: u64| bytes.is_multiple_of(page_size.bytes());
        let are_aligned = ranges
            .iter()
            .all(|range| is_aligned(range.start().get()) && is_aligned(range.len()));
        if ranges.is_empty() || !are_aligned || state.log.is_some() {
            return Err(Errno::INVAL.into());
        }
        let space = ranges.iter().map(IovaRange::len).sum::<u64>().ilog2();
        if space < limits.min_space || space > limits.max_space {
            return Err(Errno::OPNOTSUPP.into());
        }
        let shift = page_size.shift().clamp(limits.min_page, limits.max_page);
        let page_size = PageSize::new(1 << shift).expect("a power of two");
        state.starts += 1;
        state.log = Some(Log {
            ranges: RangeSet::disjoint(ranges).map_err(|_| Errno::INVAL)?,
            page_size,
            dirty: BTreeSet::new(),
        });
        Ok(page_size)
    }

    fn stop(&self) -> io::Result<()> {
        self.0.lock().log = None;
        Ok(())
    }

    fn report(&self, range: IovaRange, page_size: PageSize, words: &mut [u64]) -> io::Result<()> {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.reads += 1;
        let log = state.log.as_mut().ok_or(Errno::INVAL)?;
        if !log.ranges.contains(&range) {
            return Err(Errno::INVAL.into());
        }
        let shift = log.page_size.shift();
        let pages = range.start().get() >> shift..=range.last().get() >> shift;
        // All of a page is forgotten, however little of it is asked for.
        let mut found: BTreeSet<u64> = log.dirty.extract_if(pages, |_| true).collect();
        if state.faults.contains(&Fault::ReportFails) {
            return Err(Errno::IO.into());
        }
        if state.faults.contains(&Fault::LateReport) {
            std::mem::swap(&mut found, &mut state.late);
        }
        for page in found {
            if state.faults.contains(&Fault::DropPage(page)) {
                continue;
            }
            let bytes = IovaRange::of(page << shift, ((page + 1) << shift) - 1);
            let Some(bytes) = bytes.intersection(&range) else {
                continue;
            };
            let bit = |iova: crate::Iova| (iova.get() - range.start().get()) >> page_size.shift();
            for bit in bit(bytes.start())..=bit(bytes.last()) {
                words[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        Ok(())
    }
}
