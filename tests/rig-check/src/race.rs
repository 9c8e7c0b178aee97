//! A device that writes while its log is read and memory comes and goes, and a reader that copies what is reported.
//!
//! Every write changes a word that no write before has changed, so a page that is lost differs from its copy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, ensure};
use pagetrail_tracker::{Access, IovaRange, Leaves};

use crate::device::Device;
use crate::engine::{Kind, Outcome};
use crate::memory::{Memory, PAGE};
use crate::space::{Space, range};

/// Words of a page, each of which is written once.
const WORDS: u64 = PAGE / 4;
/// Pages of the mapping that comes and goes, at the end of the memory.
const COME_AND_GO: u64 = 16;

/// The pages as they were when they were last reported.
struct Copies {
    pages: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what is reported in `all`. Returns the number of pages.
    fn update(&self, space: &Space, all: IovaRange) -> Result<usize> {
        let mut copies = self.lock();
        let reported = space.report(all)?;
        for page in &reported {
            copies.insert(*page, space.memory.page(*page)?);
        }
        Ok(reported.len())
    }

    /// Fails if one of `pages` is not as it was copied. Nobody writes them meanwhile.
    fn compare(&self, space: &Space, pages: std::ops::Range<u64>) -> Result<()> {
        let copies = self.lock();
        let clean = vec![0; PAGE as usize];
        for page in pages {
            let is_equal = copies.get(&page).unwrap_or(&clean) == &space.memory.page(page)?;
            ensure!(is_equal, "page {page} was lost");
        }
        Ok(())
    }
}

/// What the race is run on: memory of which every word is written once.
struct Track {
    space: Space,
    pages: u64,
    writes: u64,
    copies: Copies,
}

impl Track {
    fn new(device: &Arc<Device>, writes: u64) -> Result<Self> {
        let writes = match device.engine.kind {
            Kind::IommuTestdev => writes,
            Kind::Edu => writes.min(100),
        };
        let pages = writes.div_ceil(WORDS).max(2 * COME_AND_GO);
        let space = Space::empty(device, Memory::small(pages * PAGE)?, Leaves::Small)?;
        let copies = Copies {
            pages: Mutex::default(),
        };
        let track = Self {
            space,
            pages,
            writes,
            copies,
        };
        let stays = pages - COME_AND_GO;
        track.space.map(range(0, stays * PAGE), Access::Write)?;
        track.space.map(track.comes_and_goes(), Access::Write)?;
        track.space.start(&[track.all()])?;
        Ok(track)
    }

    fn all(&self) -> IovaRange {
        range(0, self.pages * PAGE)
    }

    fn comes_and_goes(&self) -> IovaRange {
        range((self.pages - COME_AND_GO) * PAGE, COME_AND_GO * PAGE)
    }

    /// Writes every page in turn, each time a further word. Returns how many writes were refused.
    fn write_all(&self) -> Result<u64> {
        let mut refused = 0;
        for number in 0..self.writes {
            let (page, word) = (number % self.pages, number / self.pages % WORDS);
            let outcome = self.space.device.engine.write(range(page * PAGE + word * 4, 4))?;
            refused += u64::from(outcome == Outcome::Refused);
        }
        Ok(refused)
    }

    /// The end: the device has stopped, a last report is read, and every page must be as it was copied.
    fn finish(&self) -> Result<()> {
        let _quiesced = self.space.attached.quiesce();
        self.copies.update(&self.space, self.all())?;
        self.copies.compare(&self.space, 0..self.pages)
    }
}

/// Runs `work` again and again while the device writes. Returns how often, and how many writes were refused.
fn while_writing(track: &Track, mut work: impl FnMut() -> Result<()>) -> Result<(u64, u64)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let refused = track.write_all();
            done.store(true, Ordering::Release);
            refused
        });
        let mut rounds = 0;
        let mut result = Ok(());
        while !done.load(Ordering::Acquire) && result.is_ok() {
            result = work();
            rounds += 1;
        }
        let refused = writer.join().expect("the writer does not panic")?;
        result.map(|()| (rounds, refused))
    })
}

/// Against reads.
pub(crate) fn reads(device: &Arc<Device>, writes: u64) -> Result<()> {
    let track = Track::new(device, writes)?;
    let mut reported = 0;
    let (rounds, refused) = while_writing(&track, || {
        reported += track.copies.update(&track.space, track.all())?;
        Ok(())
    })?;
    println!(
        "# {} writes against {rounds} reads, {reported} pages reported",
        track.writes
    );
    ensure!(refused == 0, "{refused} writes were refused");
    track.finish()
}

/// Against reads, and a mapping that comes and goes: once it has gone nobody writes it, and it must be as it was copied.
pub(crate) fn unmaps(device: &Arc<Device>, writes: u64) -> Result<()> {
    let track = Track::new(device, writes)?;
    let gone = track.comes_and_goes();
    let (rounds, refused) = while_writing(&track, || {
        track.copies.update(&track.space, track.all())?;
        track.space.ioas.unmap(gone)?;
        track.copies.update(&track.space, track.all())?;
        let pages = track.pages - COME_AND_GO..track.pages;
        track.copies.compare(&track.space, pages)?;
        track.space.map(gone, Access::Write)
    })?;
    println!(
        "# {} writes, of which {refused} refused, against {rounds} unmaps",
        track.writes
    );
    track.finish()
}
