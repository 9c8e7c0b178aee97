//! A device that writes while its log is read, and a reader that copies what is reported.
//!
//! Every write changes a word that no write before has changed, so a page that is lost differs from its copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use vfio_user_check::vmm::GuestMemory;

use crate::engine::{Kind, Outcome, Registers};
use crate::guest::{Guest, PAGE};
use crate::served::Served;
use crate::subject::Subject;

/// Words of a page, each of which is written once.
const WORDS: u64 = PAGE / 4;
/// Writes, of a device that takes its time and of one that does not.
const SLOW: u64 = 50;
const FAST: u64 = 30_000;

/// The pages as they were when they were last reported.
#[derive(Default)]
struct Copies(BTreeMap<u64, Vec<u8>>);

impl Copies {
    fn update(&mut self, memory: &GuestMemory, pages: &[u64]) -> Result<()> {
        for page in pages {
            self.0.insert(*page, content(memory, *page)?);
        }
        Ok(())
    }

    fn compare(&self, memory: &GuestMemory, pages: u64) -> Result<()> {
        let clean = vec![0; PAGE as usize];
        for page in 0..pages {
            let copy = self.0.get(&page).unwrap_or(&clean);
            ensure!(*copy == content(memory, page)?, "page {page} was lost");
        }
        Ok(())
    }
}

fn content(memory: &GuestMemory, page: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE as usize];
    memory.read(page * PAGE, &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn reports(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        let (kind, memory) = (guest.kind, Arc::clone(guest.memory()));
        let writes = match kind {
            Kind::Testdev | Kind::Vf => FAST,
            Kind::Edu => SLOW,
        };
        let pages = writes.div_ceil(WORDS).max(8);
        let area = guest.registers.take().context("not mapped")?;
        guest.start_log()?;
        let done = AtomicBool::new(false);
        let mut copies = Copies::default();
        let (mut rounds, mut reported) = (0, 0);
        let result = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let result = write_all(kind, &mut Registers::Mapped(&area), writes, pages);
                done.store(true, Ordering::Release);
                result
            });
            while !done.load(Ordering::Acquire) {
                let dirty = guest.report_all()?;
                (rounds, reported) = (rounds + 1, reported + dirty.len());
                copies.update(&memory, &dirty)?;
            }
            writer.join().expect("the writer does not panic")
        });
        result?;
        copies.update(&memory, &guest.report_all()?)?;
        println!("# {writes} writes against {rounds} reports of {reported} pages");
        copies.compare(&memory, pages)
    };
    served.explain(check())
}

/// Writes every page in turn, each time a further word.
fn write_all(kind: Kind, registers: &mut Registers<'_>, writes: u64, pages: u64) -> Result<()> {
    for number in 0..writes {
        let (page, word) = (number % pages, number / pages % WORDS);
        let outcome = kind.write(registers, page * PAGE + word * 4)?;
        ensure!(outcome == Outcome::Written, "write {number} was stopped");
    }
    Ok(())
}
