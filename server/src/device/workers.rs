//! A pool of worker threads that can be paused.
//!
//! A device cuts its work into short steps. Each worker calls its [`Job`] again and again, and looks between two steps
//! whether it is to pause: a paused pool is a quiescent device, and what a job had half done is in the device's state
//! and not on a thread's stack.
//!
//! The pool does not interrupt a step. A device whose steps are short is quick to pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use crossbeam_utils::sync::{Parker, Unparker};
use parking_lot::Mutex;

use super::QuiesceError;

/// One worker's work: does one step, and says when to be called again.
pub type Job = Box<dyn FnMut(&Wakers) -> Next + Send>;

/// When a worker's next step is due. The sooner is the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Next {
    /// At once.
    Again,
    /// After this time, or when it is woken.
    Sleep(Duration),
    /// When it is woken.
    Wait,
}

/// Wakes workers of one pool. A wake-up is not lost: a worker that is busy looks again before it sleeps.
#[derive(Clone)]
pub struct Wakers(Arc<[Unparker]>);

impl Wakers {
    /// Wakes every worker.
    pub fn wake_all(&self) {
        for worker in self.0.iter() {
            worker.unpark();
        }
    }

    /// Wakes worker number `worker`, if there is one.
    pub fn wake(&self, worker: usize) {
        if let Some(worker) = self.0.get(worker) {
            worker.unpark();
        }
    }
}

/// A pool of threads, one for each job; built paused. Dropping it ends the threads after their current step.
pub struct Workers {
    shared: Arc<Shared>,
    wakers: Wakers,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The [`Mode`].
    mode: AtomicU8,
    /// A worker holds its lock in a step, and looks at the mode under it. So whoever has changed the mode and then held
    /// a worker's lock knows that the worker has seen the change. No two workers share a lock: hundreds of them pause
    /// and go on without waiting for each other.
    steps: Vec<CachePadded<Mutex<()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    /// Workers step.
    Run,
    /// Workers begin no step.
    Pausing,
    /// No worker is in a step.
    Paused,
    /// Workers end.
    Exit,
}

impl Workers {
    /// Starts one thread, paused, for each of `jobs`. `name` names the threads.
    ///
    /// # Errors
    ///
    /// When the host cannot start a thread; none is left behind.
    pub fn start(name: &str, jobs: Vec<Job>) -> std::io::Result<Self> {
        let parkers: Vec<Parker> = jobs.iter().map(|_| Parker::new()).collect();
        let mut workers = Self {
            shared: Arc::new(Shared {
                mode: AtomicU8::new(Mode::Paused as u8),
                steps: jobs.iter().map(|_| CachePadded::default()).collect(),
            }),
            wakers: Wakers(parkers.iter().map(|parker| parker.unparker().clone()).collect()),
            threads: Vec::with_capacity(jobs.len()),
        };
        for (index, (job, parker)) in jobs.into_iter().zip(parkers).enumerate() {
            let shared = Arc::clone(&workers.shared);
            let wakers = workers.wakers.clone();
            let thread = std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || shared.work(index, job, &parker, &wakers))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// The pool's wakers.
    pub fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    /// Whether the pool is meant to run: not so from [`pause`](Self::pause) to [`resume`](Self::resume).
    pub fn is_running(&self) -> bool {
        self.shared.is(Mode::Run)
    }

    /// Whether no worker is in a step, nor begins one before [`resume`](Self::resume).
    pub fn is_paused(&self) -> bool {
        self.shared.is(Mode::Paused)
    }

    /// Lets the workers step. Idempotent.
    pub fn resume(&self) {
        self.shared.set(Mode::Run);
        self.wakers.wake_all();
    }

    /// Returns when no worker is in a step. Idempotent. Not to be called while another thread resumes the pool.
    ///
    /// # Errors
    ///
    /// [`QuiesceError`] when a step takes longer than `deadline`: no further step begins all the same, and the caller may
    /// try again. Always, when a worker panicked.
    pub fn pause(&self, deadline: Instant) -> Result<(), QuiesceError> {
        if self.is_paused() {
            return Ok(());
        }
        self.shared.set(Mode::Pausing);
        for (worker, step) in self.shared.steps.iter().enumerate() {
            if step.try_lock_until(deadline).is_none() {
                return Err(QuiesceError(format!("worker {worker} is busy")));
            }
        }
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(QuiesceError("a worker has died".to_owned()));
        }
        self.shared.set(Mode::Paused);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.set(Mode::Exit);
        self.wakers.wake_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a device's worker thread panicked");
            }
        }
    }
}

impl Shared {
    fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    fn work(&self, worker: usize, mut job: Job, parker: &Parker, wakers: &Wakers) {
        while !self.is(Mode::Exit) {
            match self.step(worker, &mut job, wakers) {
                Next::Again => {}
                Next::Sleep(time) => parker.park_timeout(time),
                Next::Wait => parker.park(),
            }
        }
    }

    fn step(&self, worker: usize, job: &mut Job, wakers: &Wakers) -> Next {
        let _step = self.steps[worker].lock();
        if self.is(Mode::Run) {
            job(wakers)
        } else {
            Next::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn counting_jobs(count: usize, steps: &Arc<AtomicUsize>) -> Vec<Job> {
        let job = |steps: Arc<AtomicUsize>| -> Job {
            Box::new(move |_| {
                steps.fetch_add(1, Ordering::Relaxed);
                Next::Again
            })
        };
        (0..count).map(|_| job(Arc::clone(steps))).collect()
    }

    #[test]
    fn no_step_happens_before_resume_or_while_paused() {
        let steps = Arc::new(AtomicUsize::new(0));
        let workers = Workers::start("test", counting_jobs(4, &steps)).unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), 0);
        for _ in 0..50 {
            let before = steps.load(Ordering::Relaxed);
            workers.resume();
            while steps.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            workers.pause(soon()).unwrap();
            assert!(workers.is_paused());
            let stopped_at = steps.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(steps.load(Ordering::Relaxed), stopped_at);
        }
    }

    #[test]
    fn many_busy_workers_pause_promptly_time_and_again() {
        let busy = || -> Job {
            Box::new(|_| {
                let step = Instant::now();
                while step.elapsed() < Duration::from_micros(200) {}
                Next::Again
            })
        };
        let workers = Workers::start("test", (0..64).map(|_| busy()).collect()).unwrap();
        for _ in 0..20 {
            workers.resume();
            std::thread::sleep(Duration::from_millis(5));
            workers.pause(Instant::now() + Duration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn a_pool_is_paused_from_the_start() {
        for _ in 0..20 {
            let jobs = (0..8).map(|_| -> Job { Box::new(|_| Next::Wait) }).collect();
            assert!(Workers::start("test", jobs).unwrap().is_paused());
        }
    }

    #[test]
    fn pause_gives_up_at_its_deadline_and_holds_when_the_step_ends() {
        let (release, gate) = crossbeam_channel::bounded::<()>(0);
        let (entered_tx, entered) = crossbeam_channel::unbounded();
        let job: Job = Box::new(move |_| {
            entered_tx.send(()).ok();
            gate.recv().ok();
            Next::Again
        });
        let workers = Workers::start("test", vec![job]).unwrap();
        workers.resume();
        entered.recv().unwrap();
        assert!(workers.pause(Instant::now() + Duration::from_millis(20)).is_err());
        assert!(!workers.is_paused());
        release.send(()).unwrap();
        workers.pause(soon()).unwrap();
        assert!(entered.try_recv().is_err(), "no second step");
        drop(release);
    }

    #[test]
    fn a_wake_up_during_a_step_is_not_lost() {
        let steps = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&steps);
        let job: Job = Box::new(move |wakers| {
            if counter.fetch_add(1, Ordering::Relaxed) < 9 {
                wakers.wake(0);
            }
            Next::Wait
        });
        let workers = Workers::start("test", vec![job]).unwrap();
        workers.resume();
        let deadline = soon();
        while steps.load(Ordering::Relaxed) < 10 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn waiting_workers_pause_at_once_and_end_with_the_pool() {
        let jobs = (0..8).map(|_| -> Job { Box::new(|_| Next::Wait) }).collect();
        let workers = Workers::start("test", jobs).unwrap();
        workers.resume();
        workers.pause(soon()).unwrap();
        workers.resume();
        drop(workers);
    }

    #[test]
    fn a_pool_that_lost_a_worker_does_not_pass_for_paused() {
        let workers = Workers::start("test", vec![Box::new(|_| panic!("on purpose"))]).unwrap();
        workers.resume();
        let deadline = soon();
        while !workers.threads[0].is_finished() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(workers.pause(soon()).is_err());
    }

    #[test]
    fn the_sooner_next_is_the_lesser() {
        let millis = |n| Next::Sleep(Duration::from_millis(n));
        assert!(Next::Again < millis(1) && millis(1) < millis(2) && millis(2) < Next::Wait);
    }
}
