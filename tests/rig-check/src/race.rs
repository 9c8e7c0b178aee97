//! A device that writes while its log is read and memory comes and goes, and a reader that copies what is reported.
//!
//! Every write changes bytes that no write before has changed, so a page that is lost differs from its copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use pagetrail_tracker::{Access, IovaRange, Leaves};

use crate::device::Device;
use crate::memory::{Memory, PAGE};
use crate::space::{Space, range};

/// Pages of the mapping that comes and goes, at the end of the memory.
const COME_AND_GO: u64 = 16;

/// The pages as they were when they were last reported.
#[derive(Default)]
struct Copies(BTreeMap<u64, Vec<u8>>);

impl Copies {
    /// Copies what is reported in all of the memory. Returns the number of pages.
    fn update(&mut self, track: &Track) -> Result<usize> {
        let reported = track.space.report(track.all())?;
        for page in &reported {
            self.0.insert(*page, track.space.memory.page(*page)?);
        }
        Ok(reported.len())
    }

    /// Fails if one of `pages` is not as it was copied. Nobody writes them meanwhile.
    fn compare(&self, track: &Track, pages: std::ops::Range<u64>) -> Result<()> {
        let clean = vec![0; PAGE as usize];
        for page in pages {
            let is_equal = self.0.get(&page).unwrap_or(&clean) == &track.space.memory.page(page)?;
            ensure!(is_equal, "page {page} was lost");
        }
        Ok(())
    }
}

/// What the race is run on: memory of which every unit is written once.
struct Track {
    space: Space,
    pages: u64,
    writes: u64,
}

impl Track {
    fn new(device: &Arc<Device>, writes: u64) -> Result<Self> {
        let limits = device.engine.limits();
        let writes = writes.min(limits.race);
        let units = PAGE / limits.unit;
        let pages = writes.div_ceil(units).max(2 * COME_AND_GO);
        let space = Space::empty(device, Memory::small(pages * PAGE)?, Leaves::Small)?;
        let track = Self { space, pages, writes };
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

    /// What write `number` writes: of every page in turn, each time a further unit.
    fn target(&self, number: u64) -> IovaRange {
        let unit = self.space.device.engine.limits().unit;
        let (page, turn) = (number % self.pages, number / self.pages);
        range(page * PAGE + turn * unit, unit)
    }

    fn write_all(&self) -> Result<()> {
        let engine = &self.space.device.engine;
        let targets: Vec<IovaRange> = (0..self.writes).map(|number| self.target(number)).collect();
        targets
            .chunks(engine.limits().depth)
            .try_for_each(|some| engine.write(some))
    }

    /// How many writes memory has.
    fn arrived(&self) -> Result<u64> {
        let mut arrived = 0;
        for number in 0..self.writes {
            let target = self.target(number);
            let bytes = self.space.memory.read(target.start().get(), target.len())?;
            arrived += u64::from(bytes.iter().all(|byte| *byte != 0));
        }
        Ok(arrived)
    }

    /// The end: the device has stopped, a last report is read, and every page must be as it was copied.
    fn finish(&self, copies: &mut Copies) -> Result<()> {
        let _quiesced = self.space.quiesce();
        copies.update(self)?;
        copies.compare(self, 0..self.pages)
    }
}

/// Runs `work` again and again while the device writes. Returns how often.
fn while_writing(track: &Track, mut work: impl FnMut() -> Result<()>) -> Result<u64> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = track.write_all();
            done.store(true, Ordering::Release);
            written
        });
        let mut rounds = 0;
        let mut result = Ok(());
        while !done.load(Ordering::Acquire) && result.is_ok() {
            result = work();
            rounds += 1;
        }
        writer.join().expect("the writer does not panic")?;
        result.map(|()| rounds)
    })
}

/// Against reads.
pub(crate) fn reads(device: &Arc<Device>, writes: u64) -> Result<()> {
    let track = Track::new(device, writes)?;
    let mut copies = Copies::default();
    let mut reported = 0;
    let rounds = while_writing(&track, || {
        reported += copies.update(&track)?;
        Ok(())
    })?;
    let writes = track.writes;
    println!("# {writes} writes against {rounds} reads, {reported} pages reported");
    track.finish(&mut copies)?;
    let arrived = track.arrived()?;
    ensure!(arrived == writes, "of {writes} writes {arrived} have arrived");
    Ok(())
}

/// Against reads, and a mapping that comes and goes: once it has gone nobody writes it, and it must be as it was copied.
pub(crate) fn unmaps(device: &Arc<Device>, writes: u64) -> Result<()> {
    let track = Track::new(device, writes)?;
    let mut copies = Copies::default();
    let gone = track.comes_and_goes();
    let rounds = while_writing(&track, || {
        copies.update(&track)?;
        track.space.ioas.unmap(gone)?;
        copies.update(&track)?;
        copies.compare(&track, track.pages - COME_AND_GO..track.pages)?;
        track.space.map(gone, Access::Write)
    })?;
    let stopped = track.writes - track.arrived()?;
    println!(
        "# {} writes, of which {stopped} were stopped, against {rounds} unmaps",
        track.writes
    );
    track.finish(&mut copies)
}
