//! The descriptor ring: fetching, work in flight, completing.
//!
//! One lock guards the ring's counters and the work that waits for a worker. A descriptor is in exactly one place: not
//! fetched, in flight (waiting here, or in a worker's hands for one step), or completed. A completion is written and counted
//! under the lock, so that between two steps it is either written or still to be written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use zerocopy::{FromZeros, IntoBytes};

use super::doorbell::{Doorbell, Doorbells};
use super::events::Fault;
use super::layout::{CompletionBody, Descriptor};
use super::spec::{self, ErrorCode};
use super::work::{Outcome, Work};
use crate::guest::Dma;

/// Descriptors that one fetch reads at most.
const FETCH_MAX: u32 = 32;

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    state: Mutex<RingState>,
    /// Length of the queue, for workers that look without the lock.
    waiting: AtomicUsize,
}

/// The ring's registers and the work in flight. With no worker in a step, all of the work in flight is in `queue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RingState {
    /// The configuration registers.
    pub(super) config: RingConfig,
    /// What the ring is doing.
    pub(super) mode: RingMode,
    /// `RING_HEAD`.
    pub(super) head: u32,
    /// `COMP_TAIL`.
    pub(super) comp_tail: u32,
    /// Fetched, not completed, and in no worker's hands. Empty unless the ring runs.
    pub(super) queue: VecDeque<Work>,
}

/// What the ring is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RingMode {
    /// `RING_ENABLE` is clear.
    #[default]
    Disabled,
    /// Enabled and at work.
    Running(Geometry),
    /// Enabled and stopped by an error.
    Failed,
}

/// `DESC_BASE`, `COMP_BASE` and `RING_ENTRIES` as the driver wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RingConfig {
    pub(super) desc_base: u64,
    pub(super) comp_base: u64,
    pub(super) entries: u32,
}

/// A valid configuration: entries a power of two within bounds, rings aligned and not wrapping around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry(RingConfig);

impl Geometry {
    /// `None` when the configuration is not valid.
    pub(super) fn new(config: RingConfig) -> Option<Self> {
        let entries = config.entries;
        let has_size =
            entries.is_power_of_two() && (spec::MIN_ENTRIES..=spec::MAX_ENTRIES).contains(&entries);
        let fits = |base: u64, size: u64| {
            base.is_multiple_of(size) && base.checked_add(u64::from(entries) * size - 1).is_some()
        };
        let is_valid = has_size
            && fits(config.desc_base, spec::DESCRIPTOR_SIZE)
            && fits(config.comp_base, spec::COMPLETION_SIZE);
        is_valid.then_some(Self(config))
    }

    pub(super) fn entries(self) -> u32 {
        self.0.entries
    }

    fn slot(self, index: u32) -> u32 {
        index & (self.0.entries - 1)
    }

    fn descriptor(self, index: u32) -> u64 {
        self.0.desc_base + u64::from(self.slot(index)) * spec::DESCRIPTOR_SIZE
    }

    fn completion(self, index: u32) -> u64 {
        self.0.comp_base + u64::from(self.slot(index)) * spec::COMPLETION_SIZE
    }

    /// 1 on the first pass over the completion ring, 0 on the second, and so on.
    fn phase(self, index: u32) -> u32 {
        u32::from((index / self.0.entries).is_multiple_of(2))
    }
}

/// What a fetch led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// Work for the workers: so many descriptors.
    Work(u32),
    /// Nothing new, or no slot free.
    Nothing,
    /// The ring is not running.
    Idle,
    /// The ring was stopped by this error just now.
    Failed(ErrorCode),
}

/// What completing a descriptor led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completed {
    /// The completion is written.
    Written,
    /// DMA is stopped: the work waits for its completion.
    Stopped,
    /// The ring has stopped, and the descriptor with it.
    Dropped,
    /// The ring was stopped by this error just now.
    Failed(ErrorCode),
}

impl Ring {
    /// Whether the ring has work that no worker has in hand. Without the lock: a worker that is woken after
    /// [`fetch`](Self::fetch) sees what was fetched.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Looks at, or changes, the state. Only a quiescent ring's may be replaced.
    pub(super) fn with_state<R>(&self, look: impl FnOnce(&mut RingState) -> R) -> R {
        let mut state = self.state.lock();
        let result = look(&mut state);
        self.waiting.store(state.queue.len(), Ordering::Release);
        result
    }

    /// Fetches what the driver has published, as far as there are completion slots.
    pub(super) fn fetch(&self, dma: &Dma, doorbells: &Doorbells) -> Fetched {
        self.with_state(|state| {
            let RingMode::Running(geometry) = state.mode else {
                return Fetched::Idle;
            };
            match state.fetch(geometry, dma, doorbells) {
                Ok(0) | Err(Fault::Stopped) => Fetched::Nothing,
                Ok(count) => Fetched::Work(count),
                Err(Fault::Error(error)) => {
                    state.fail();
                    Fetched::Failed(error)
                }
            }
        })
    }

    /// Takes work that waits. The caller gives it back by [`put_back`](Self::put_back) or [`complete`](Self::complete)
    /// within the same step.
    pub(super) fn take(&self) -> Option<Work> {
        if !self.has_waiting() {
            return None;
        }
        self.with_state(|state| state.queue.pop_front())
    }

    /// Puts work back that needs more steps, behind the others.
    pub(super) fn put_back(&self, work: Work) {
        self.with_state(|state| state.put_back(work));
    }

    /// Writes the completion of `work`.
    pub(super) fn complete(&self, dma: &Dma, work: Work, outcome: Outcome) -> Completed {
        self.with_state(|state| {
            let RingMode::Running(geometry) = state.mode else {
                return Completed::Dropped;
            };
            match write_completion(geometry, state.comp_tail, dma, &work, outcome) {
                Ok(()) => {
                    state.comp_tail = state.comp_tail.wrapping_add(1);
                    Completed::Written
                }
                Err(Fault::Stopped) => {
                    state.put_back(work);
                    Completed::Stopped
                }
                Err(Fault::Error(error)) => {
                    state.fail();
                    Completed::Failed(error)
                }
            }
        })
    }
}

impl RingState {
    /// Descriptors fetched and not completed.
    pub(super) fn in_flight(&self) -> u32 {
        match self.mode {
            RingMode::Running(_) => self.head.wrapping_sub(self.comp_tail),
            RingMode::Disabled | RingMode::Failed => 0,
        }
    }

    /// `RING_ENABLE` is set.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid: the ring has failed.
    pub(super) fn enable(&mut self) -> Result<(), ErrorCode> {
        *self = Self {
            config: self.config,
            ..Self::default()
        };
        let Some(geometry) = Geometry::new(self.config) else {
            self.fail();
            return Err(ErrorCode::BadRing);
        };
        self.mode = RingMode::Running(geometry);
        Ok(())
    }

    /// `RING_ENABLE` is cleared.
    pub(super) fn disable(&mut self) {
        self.mode = RingMode::Disabled;
        self.queue.clear();
    }

    fn fail(&mut self) {
        self.mode = RingMode::Failed;
        self.queue.clear();
    }

    fn put_back(&mut self, work: Work) {
        if matches!(self.mode, RingMode::Running(_)) {
            self.queue.push_back(work);
        }
    }

    fn fetch(&mut self, geometry: Geometry, dma: &Dma, doorbells: &Doorbells) -> Result<u32, Fault> {
        let count = self.fetchable(geometry, doorbells)?;
        if count == 0 {
            return Ok(0);
        }
        let mut descriptors = [Descriptor::new_zeroed(); FETCH_MAX as usize];
        let descriptors = &mut descriptors[..count as usize];
        dma.read(geometry.descriptor(self.head), descriptors.as_mut_bytes())?;
        for descriptor in descriptors {
            self.queue.push_back(Work::new(self.head, descriptor));
            self.head = self.head.wrapping_add(1);
        }
        Ok(count)
    }

    /// Descriptors that one read can fetch: published, with a completion slot each, and not beyond the ring's end.
    fn fetchable(&self, geometry: Geometry, doorbells: &Doorbells) -> Result<u32, Fault> {
        let entries = geometry.entries();
        let published = doorbells.load(Doorbell::RingTail).wrapping_sub(self.head);
        let comp_head = doorbells.load(Doorbell::CompHead);
        if published > entries || self.comp_tail.wrapping_sub(comp_head) > entries {
            return Err(Fault::Error(ErrorCode::BadDoorbell));
        }
        let free_slots = entries.saturating_sub(self.head.wrapping_sub(comp_head));
        let before_end = entries - geometry.slot(self.head);
        Ok(published.min(free_slots).min(before_end).min(FETCH_MAX))
    }
}

/// Writes completion number `index`: its phase last, so that a driver that sees it sees all of it.
fn write_completion(
    geometry: Geometry,
    index: u32,
    dma: &Dma,
    work: &Work,
    outcome: Outcome,
) -> Result<(), Fault> {
    let body = CompletionBody {
        cookie: work.cookie.into(),
        result: outcome.result.into(),
        index: work.index.into(),
        status: outcome.error.map_or(0, |error| error as u32).into(),
        reserved: 0.into(),
    };
    let at = geometry.completion(index);
    dma.write(at, body.as_bytes())?;
    dma.store_u32(
        at + spec::PHASE_OFFSET,
        geometry.phase(index).to_le(),
        Ordering::Release,
    )?;
    Ok(())
}
