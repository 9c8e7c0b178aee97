//! What the device's threads do: one for each lane, and one that watches the doorbells.

use std::sync::Arc;
use std::time::Duration;

use super::doorbell::Doorbells;
use super::events::Events;
use super::generator::{Generated, Generator, Lane};
use super::ring::{Completed, Fetched, Ring};
use super::spec::{Causes, ErrorCode};
use super::work::{CHUNK, Notify, Outcome, Progress, Work};
use super::{Lanes, RETRY};
use crate::device::{Job, Next, Wakers};
use crate::guest::Dma;

/// Doorbells are looked at again after this time when something was published just now …
const POLL_MIN: Duration = Duration::from_micros(5);
/// … and after this time at the latest. With the scheduler's delay it stays within the promised millisecond.
const POLL_MAX: Duration = Duration::from_micros(750);

/// The parts of the device, as its threads share them.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) dma: Dma,
    pub(super) events: Events,
    pub(super) doorbells: Doorbells,
    pub(super) ring: Ring,
    pub(super) generator: Generator,
}

impl Engine {
    /// The threads' jobs: the lanes' in order, and the doorbells' after them.
    pub(super) fn jobs(self: &Arc<Self>, lanes: Lanes) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        for lane in 0..lanes.get() as usize {
            let mut worker = Worker::new(Arc::clone(self), lane, lanes);
            jobs.push(Box::new(move |wakers| worker.step(wakers)));
        }
        let mut poller = Poller::new(Arc::clone(self), lanes);
        jobs.push(Box::new(move |wakers| poller.step(wakers)));
        jobs
    }

    fn fail_ring(&self, error: ErrorCode) {
        self.events.fail(Causes::RING_ERROR, error);
    }

    /// Writes a completion, and raises the cause after it.
    fn complete(&self, work: Work, outcome: Outcome) -> Next {
        let notify = work.notify;
        match self.ring.complete(&self.dma, work, outcome) {
            Completed::Written if notify == Notify::Raise => self.events.raise(Causes::COMPLETION),
            Completed::Written | Completed::Dropped => {}
            Completed::Stopped => return Next::Sleep(RETRY),
            Completed::Failed(error) => self.fail_ring(error),
        }
        Next::Again
    }
}

/// The lane after `lane`.
fn after(lane: usize, lanes: Lanes) -> usize {
    (lane + 1) % lanes.get() as usize
}

/// A lane's thread: in each step a chunk of a descriptor and a few of the generator's pages.
struct Worker {
    engine: Arc<Engine>,
    neighbour: usize,
    lane: Lane,
    buffer: Box<[u8]>,
}

impl Worker {
    fn new(engine: Arc<Engine>, lane: usize, lanes: Lanes) -> Self {
        Self {
            engine,
            neighbour: after(lane, lanes),
            lane: Lane::new(lane),
            buffer: vec![0; CHUNK].into_boxed_slice(),
        }
    }

    fn step(&mut self, wakers: &Wakers) -> Next {
        self.advance_descriptor(wakers).min(self.advance_generator())
    }

    fn advance_descriptor(&mut self, wakers: &Wakers) -> Next {
        let Some(mut work) = self.engine.ring.take() else {
            return Next::Wait;
        };
        // Work that waits always has a lane that is awake, or about to be.
        if self.engine.ring.has_waiting() {
            wakers.wake(self.neighbour);
        }
        match work.advance(&self.engine.dma, &mut self.buffer) {
            Progress::Finished(outcome) => self.engine.complete(work, outcome),
            Progress::More => {
                self.engine.ring.put_back(work);
                Next::Again
            }
            Progress::Stopped => {
                self.engine.ring.put_back(work);
                Next::Sleep(RETRY)
            }
        }
    }

    fn advance_generator(&mut self) -> Next {
        match self.lane.step(&self.engine.generator, &self.engine.dma) {
            Generated::Next(next) => return next,
            Generated::Finished => self.engine.events.raise(Causes::GEN_FINISHED),
            Generated::Failed(error) => self.engine.events.fail(Causes::GEN_ERROR, error),
        }
        Next::Wait
    }
}

/// The thread that watches the doorbells and fetches descriptors. It waits when the ring is disabled.
struct Poller {
    engine: Arc<Engine>,
    lanes: Lanes,
    /// The lane to wake next.
    lane: usize,
    pause: Duration,
}

impl Poller {
    fn new(engine: Arc<Engine>, lanes: Lanes) -> Self {
        Self {
            engine,
            lanes,
            lane: 0,
            pause: POLL_MIN,
        }
    }

    fn step(&mut self, wakers: &Wakers) -> Next {
        match self.engine.ring.fetch(&self.engine.dma, &self.engine.doorbells) {
            Fetched::Work(count) => {
                self.pause = POLL_MIN;
                self.wake_lanes(count, wakers);
                Next::Again
            }
            Fetched::Nothing => {
                let pause = self.pause;
                self.pause = (pause * 2).min(POLL_MAX);
                Next::Sleep(pause)
            }
            Fetched::Idle => Next::Wait,
            Fetched::Failed(error) => {
                self.engine.fail_ring(error);
                Next::Wait
            }
        }
    }

    fn wake_lanes(&mut self, count: u32, wakers: &Wakers) {
        for _ in 0..count.min(self.lanes.get()) {
            wakers.wake(self.lane);
            self.lane = after(self.lane, self.lanes);
        }
    }
}
