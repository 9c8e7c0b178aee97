//! A device that writes while its log is read, and an oracle that finds a page that was lost.
//!
//! Every write changes bytes that no write before has changed, the reader copies each page that is reported, and in the end every page must
//! be as it was copied. What has just been written is read most often, since only that can be lost; now and then everything is.

mod course;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::copies::Copies;
use crate::memory::Memory;

pub use course::Course;

/// One read in so many is of all pages.
const WHOLE: u64 = 64;
/// Reads that the writer may be ahead of.
const AHEAD: u64 = 8;
/// How long a race may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// How much there has to be of both. A race goes on until there is.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// DMA writes.
    pub writes: u64,
    /// Reads of the log meanwhile.
    pub reads: u64,
}

/// What there was of a race.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// DMA writes.
    pub writes: u64,
    /// Reads of the log meanwhile.
    pub reads: u64,
}

/// How a race ended.
#[derive(Clone, Debug)]
pub struct Score {
    /// What there was of it.
    pub tally: Tally,
    /// The pages that are not as they were when they were last reported.
    pub lost: Vec<u64>,
}

/// Has a device write along `course` while its log is read, until there is as much of both as the goal says. Prints how much that was.
///
/// `write` has the device write ranges of bytes, and `report` reports pages by their numbers. `memory` has one page more than the course:
/// it is written once, when the race is over, and the oracle has to miss it until it is reported.
///
/// # Errors
///
/// One side fails, the goal is not reached in time, a write has not arrived, or the oracle does not miss what it should.
pub fn run(
    course: &Course,
    goal: Goal,
    memory: &dyn Memory,
    mut write: impl FnMut(&[Range<u64>]) -> Result<()> + Send,
    mut report: impl FnMut(Range<u64>) -> Result<Vec<u64>>,
) -> Result<Score> {
    let all = 0..course.pages() + 1;
    let mut copies = Copies::new(all.end);
    let (mut number, mut reported) = (0, 0);
    let tally = against(course, goal, &mut write, |writes| {
        number += 1;
        let pages = if number % WHOLE == 0 {
            all.clone()
        } else {
            course.recent(writes)
        };
        let pages = report(pages)?;
        reported += pages.len();
        copies.update(memory, &pages)
    })?;
    println!(
        "# {} writes against {} reads, {reported} pages reported",
        tally.writes, tally.reads
    );
    write(&[course.beyond()])?;
    ensure!(
        !copies.lost(memory, course.pages()..all.end)?.is_empty(),
        "the oracle does not miss a page that is still to be reported"
    );
    copies.update(memory, &report(all.clone())?)?;
    let (arrived, writes) = (course.arrived(memory, tally.writes)?, tally.writes);
    ensure!(arrived == writes, "of {writes} writes {arrived} have arrived");
    Ok(Score {
        tally,
        lost: copies.lost(memory, all)?,
    })
}

impl Score {
    /// Fails if a page was lost.
    ///
    /// # Errors
    ///
    /// Names some.
    pub fn check(&self) -> Result<()> {
        let some: Vec<_> = self.lost.iter().take(8).collect();
        ensure!(some.is_empty(), "{} pages were lost ({some:?}…)", self.lost.len());
        Ok(())
    }
}

/// Has a device write along `course` while `read` is called again and again, with the number of writes so far. The device writes until there
/// was as much of both as the goal says.
///
/// # Errors
///
/// One side fails, or the goal is not reached in time.
pub fn against(
    course: &Course,
    goal: Goal,
    write: impl FnMut(&[Range<u64>]) -> Result<()> + Send,
    mut read: impl FnMut(u64) -> Result<()>,
) -> Result<Tally> {
    let progress = Progress::default();
    thread::scope(|scope| {
        let writer = scope.spawn(|| progress.write(course, goal, write));
        let mut result = Ok(());
        while !writer.is_finished() && result.is_ok() {
            result = read(progress.writes.load(Ordering::Relaxed));
            progress.reads.fetch_add(1, Ordering::Relaxed);
        }
        progress.given_up.store(result.is_err(), Ordering::Relaxed);
        writer.join().expect("the writer does not panic")?;
        result
    })?;
    Ok(Tally {
        writes: progress.writes.into_inner(),
        reads: progress.reads.into_inner(),
    })
}

/// What each side knows of the other.
#[derive(Default)]
struct Progress {
    writes: AtomicU64,
    reads: AtomicU64,
    given_up: AtomicBool,
}

impl Progress {
    /// The writer's side.
    fn write(
        &self,
        course: &Course,
        goal: Goal,
        mut write: impl FnMut(&[Range<u64>]) -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut writes = 0;
        while !self.given_up.load(Ordering::Relaxed) {
            let reads = self.reads.load(Ordering::Relaxed);
            if writes >= goal.writes && reads >= goal.reads {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "only {writes} writes against {reads} reads in {PATIENCE:?}"
            );
            let batch = course.batch(writes);
            // It must not use up all room, of which there is more than for its goal, before the reader is done.
            let is_ahead = writes * goal.reads > course.room() * (reads + AHEAD);
            if is_ahead || batch.is_empty() {
                thread::yield_now();
                continue;
            }
            write(&batch)?;
            writes += batch.len() as u64;
            self.writes.store(writes, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::{Course, Goal, run};
    use crate::engine::Kind;
    use crate::memory::Memory;
    use crate::pages::PAGE;

    const GOAL: Goal = Goal {
        writes: 10_000,
        reads: 200,
    };

    /// Memory and a log that work as they should.
    struct Model {
        bytes: Mutex<Vec<u8>>,
        dirty: Mutex<BTreeSet<u64>>,
    }

    impl Model {
        fn new(course: &Course) -> Self {
            Self {
                bytes: Mutex::new(vec![0; ((course.pages() + 1) * PAGE) as usize]),
                dirty: Mutex::default(),
            }
        }
    }

    impl Memory for Model {
        fn read(&self, address: u64, bytes: &mut [u8]) -> anyhow::Result<()> {
            let from = address as usize;
            bytes.copy_from_slice(&self.bytes.lock().expect("a lock")[from..from + bytes.len()]);
            Ok(())
        }

        fn write(&self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
            let to = address as usize;
            self.bytes.lock().expect("a lock")[to..to + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn load32(&self, _: u64) -> anyhow::Result<u32> {
            unreachable!("no device has a queue here")
        }
    }

    fn lost_with(forget: impl Fn(u64) -> bool) -> Vec<u64> {
        let course = Course::in_groups(GOAL, &Kind::Nvme.limits());
        let model = Model::new(&course);
        let forgotten = RefCell::new(BTreeSet::new());
        let write = |ranges: &[std::ops::Range<u64>]| {
            for range in ranges {
                model.write(range.start, &vec![7; (range.end - range.start) as usize])?;
                model.dirty.lock().expect("a lock").insert(range.start / PAGE);
            }
            Ok(())
        };
        let report = |pages: std::ops::Range<u64>| {
            let mut dirty = model.dirty.lock().expect("a lock");
            let (due, rest) = dirty.iter().partition(|page| pages.contains(page));
            *dirty = rest;
            let (gone, due): (Vec<u64>, Vec<u64>) = BTreeSet::into_iter(due).partition(|page| forget(*page));
            forgotten.borrow_mut().extend(gone);
            Ok(due)
        };
        let score = run(&course, GOAL, &model, write, report).expect("a race");
        assert!(score.tally.writes >= GOAL.writes && score.tally.reads >= GOAL.reads);
        assert!(score.lost.iter().all(|page| forgotten.borrow().contains(page)));
        score.lost
    }

    #[test]
    fn nothing_is_lost_of_a_log_that_works() {
        assert_eq!(lost_with(|_| false), []);
    }

    #[test]
    fn a_page_that_is_never_reported_is_lost() {
        assert_eq!(lost_with(|page| page == 3), [3]);
    }
}
