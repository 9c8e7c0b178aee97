//! The generator: lanes that write whole pages of a window, at a set rate or flat out.
//!
//! A lane's position is all of its progress. It counts a write when the page is complete, so that a device that goes on from
//! a saved position repeats no write and leaves none out.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use parking_lot::RwLock;

use super::events::Fault;
use super::pace::{Pace, Share};
use super::sequence::{self, Page, Sequence};
use super::spec::{self, ErrorCode};
use super::{Lanes, RETRY};
use crate::device::Next;
use crate::guest::Dma;

/// Pages that a lane writes in one step at most.
const STEP_PAGES: u32 = 16;

/// The generator, shared by its lanes.
#[derive(Debug)]
pub(super) struct Generator {
    lanes: Lanes,
    state: RwLock<GeneratorState>,
    positions: Vec<CachePadded<AtomicU64>>,
    /// Lanes that have writes to make.
    unfinished: AtomicUsize,
}

/// The generator's registers, apart from the positions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GeneratorState {
    pub(super) config: GeneratorConfig,
    pub(super) mode: GeneratorMode,
}

/// What the generator is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum GeneratorMode {
    /// `GEN_ENABLE` is clear.
    #[default]
    Disabled,
    /// Enabled: at work, or finished.
    Running(Window),
    /// Enabled and stopped by an error.
    Failed,
}

/// `GEN_BASE` to `GEN_LIMIT` as the driver wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GeneratorConfig {
    pub(super) base: u64,
    pub(super) pages: u64,
    pub(super) seed: u64,
    pub(super) rate: u64,
    pub(super) limit: u64,
}

/// A valid configuration: a window that is aligned, not empty and does not wrap around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window(GeneratorConfig);

impl Window {
    /// `None` when the configuration is not valid.
    pub(super) fn new(config: GeneratorConfig) -> Option<Self> {
        let last_byte = config.pages.checked_mul(spec::GEN_PAGE_SIZE)?.checked_sub(1)?;
        config.base.checked_add(last_byte)?;
        config
            .base
            .is_multiple_of(spec::GEN_PAGE_SIZE)
            .then_some(Self(config))
    }

    fn iova(&self, page: u64) -> u64 {
        self.0.base + page * spec::GEN_PAGE_SIZE
    }

    /// Whether a lane at `position` has writes to make.
    fn has_more(&self, position: u64) -> bool {
        self.0.limit == 0 || position < self.0.limit
    }

    /// Pages that a lane owns.
    pub(super) fn own_pages(&self, lane: usize, lanes: Lanes) -> u64 {
        sequence::own_pages(lane as u64, lanes.get().into(), self.0.pages)
    }

    /// The most that a lane's position can be.
    pub(super) fn last_position(&self, lane: usize, lanes: Lanes) -> u64 {
        match (self.own_pages(lane, lanes), self.0.limit) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (_, limit) => limit,
        }
    }

    fn sequence(&self, lane: usize, lanes: Lanes) -> Option<Sequence> {
        Sequence::new(self.0.seed, lane as u64, lanes.get().into(), self.0.pages)
    }

    fn share(&self, lane: usize, lanes: Lanes) -> Option<Share> {
        NonZeroU64::new(self.0.rate).map(|rate| Share {
            rate,
            lanes: u64::from(lanes.get()).min(self.0.pages),
            lane: lane as u64,
        })
    }
}

/// What a lane's step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generated {
    /// Nothing to tell; the next step is due then.
    Next(Next),
    /// The last lane made its last write just now.
    Finished,
    /// The generator was stopped by this error just now.
    Failed(ErrorCode),
}

impl Generator {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            state: RwLock::default(),
            positions: (0..lanes.get()).map(|_| CachePadded::default()).collect(),
            unfinished: AtomicUsize::new(0),
        }
    }

    /// The registers now.
    pub(super) fn state(&self) -> GeneratorState {
        *self.state.read()
    }

    /// Whether writes are being made: enabled, without an error and not finished.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state().mode, GeneratorMode::Running(_)) && self.unfinished.load(Ordering::Acquire) > 0
    }

    /// Page writes done by a lane, if there is such a lane.
    pub(super) fn position(&self, lane: usize) -> Option<u64> {
        Some(self.positions.get(lane)?.load(Ordering::Acquire))
    }

    pub(super) fn positions(&self) -> Vec<u64> {
        self.positions
            .iter()
            .map(|position| position.load(Ordering::Acquire))
            .collect()
    }

    /// Changes the configuration registers, which ignore writes while the generator is enabled.
    pub(super) fn configure(&self, change: impl FnOnce(&mut GeneratorConfig)) {
        let mut state = self.state.write();
        if state.mode == GeneratorMode::Disabled {
            change(&mut state.config);
        }
    }

    /// `GEN_ENABLE` is set. Only while no lane is in a step.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid: the generator has failed.
    pub(super) fn enable(&self) -> Result<(), ErrorCode> {
        let config = self.state().config;
        let window = Window::new(config);
        let mode = window.map_or(GeneratorMode::Failed, GeneratorMode::Running);
        self.replace(GeneratorState { config, mode }, &vec![0; self.positions.len()]);
        window.map(|_| ()).ok_or(ErrorCode::BadGenerator)
    }

    /// `GEN_ENABLE` is cleared. Only while no lane is in a step.
    pub(super) fn disable(&self) {
        self.state.write().mode = GeneratorMode::Disabled;
    }

    /// Replaces the whole state. Only while no lane is in a step.
    pub(super) fn replace(&self, new: GeneratorState, positions: &[u64]) {
        for (own, position) in self.positions.iter().zip(positions) {
            own.store(*position, Ordering::Release);
        }
        let has_more = |lane: usize, position: u64| match new.mode {
            GeneratorMode::Running(window) => {
                window.own_pages(lane, self.lanes) > 0 && window.has_more(position)
            }
            GeneratorMode::Disabled | GeneratorMode::Failed => false,
        };
        let unfinished = positions
            .iter()
            .enumerate()
            .filter(|(lane, position)| has_more(*lane, **position));
        self.unfinished.store(unfinished.count(), Ordering::Release);
        *self.state.write() = new;
    }

    /// A lane has made its last write.
    fn finish_lane(&self) -> Generated {
        match self.unfinished.fetch_sub(1, Ordering::AcqRel) {
            1 => Generated::Finished,
            _ => Generated::Next(Next::Wait),
        }
    }

    /// Stops every lane. The first to do so tells it.
    fn fail(&self, error: ErrorCode) -> Generated {
        let mut state = self.state.write();
        if !matches!(state.mode, GeneratorMode::Running(_)) {
            return Generated::Next(Next::Wait);
        }
        state.mode = GeneratorMode::Failed;
        Generated::Failed(error)
    }
}

/// One lane at work.
#[derive(Debug)]
pub(super) struct Lane {
    number: usize,
    page: Page,
    pace: Option<Pace>,
}

impl Lane {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            page: Page::zeroed(),
            pace: None,
        }
    }

    /// Makes the writes that are due, a few at most.
    pub(super) fn step(&mut self, generator: &Generator, dma: &Dma) -> Generated {
        let GeneratorMode::Running(window) = generator.state().mode else {
            return Generated::Next(Next::Wait);
        };
        let Some(sequence) = window.sequence(self.number, generator.lanes) else {
            return Generated::Next(Next::Wait);
        };
        self.follow(window.share(self.number, generator.lanes));
        for _ in 0..STEP_PAGES {
            match self.write_page(generator, &window, &sequence, dma) {
                Generated::Next(Next::Again) => {}
                otherwise => return otherwise,
            }
        }
        Generated::Next(Next::Again)
    }

    /// Makes the next write, if it is due, and counts it when it is made.
    fn write_page(
        &mut self,
        generator: &Generator,
        window: &Window,
        sequence: &Sequence,
        dma: &Dma,
    ) -> Generated {
        let position = &generator.positions[self.number];
        let at = position.load(Ordering::Relaxed);
        if !window.has_more(at) {
            return Generated::Next(Next::Wait);
        }
        if let Some(wait) = self.pace.as_mut().and_then(|pace| pace.wait(Instant::now())) {
            return Generated::Next(Next::Sleep(wait));
        }
        let write = sequence.write(at);
        write.fill(&mut self.page);
        match dma
            .write(window.iova(write.page), self.page.as_bytes())
            .map_err(Fault::from)
        {
            Ok(()) => {}
            Err(Fault::Stopped) => return Generated::Next(Next::Sleep(RETRY)),
            Err(Fault::Error(error)) => return generator.fail(error),
        }
        position.store(at + 1, Ordering::Release);
        if let Some(pace) = &mut self.pace {
            pace.count();
        }
        if window.has_more(at + 1) {
            return Generated::Next(Next::Again);
        }
        generator.finish_lane()
    }

    /// Begins the pace for `share`, unless it is kept already.
    fn follow(&mut self, share: Option<Share>) {
        let keeps = match (&self.pace, share) {
            (Some(pace), Some(share)) => pace.is_for(share),
            (None, None) => true,
            _ => false,
        };
        if !keeps {
            self.pace = share.map(|share| Pace::new(share, Instant::now()));
        }
    }
}
