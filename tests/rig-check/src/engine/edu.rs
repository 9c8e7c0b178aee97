//! QEMU's `edu`, which takes a tenth of a second for each transfer; see its `docs/specs/edu.rst`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use pagetrail_tracker::IovaRange;

use super::{Engine, Landing, Limits, Reads};
use crate::memory::PAGE;
use crate::registers::Registers;
use crate::scratch::Scratch;

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// Where the device has a buffer of [`BUFFER_LEN`] bytes.
const BUFFER: u64 = 0x4_0000;
const BUFFER_LEN: u64 = 4096;
/// What the buffer is filled with.
const FILLING: u8 = 0xed;

const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub(super) struct Edu {
    registers: Registers,
    /// The page of memory that the buffer is filled from. One transfer is made at a time.
    filling: Mutex<Option<IovaRange>>,
}

impl Edu {
    pub(super) fn new(registers: Registers) -> Self {
        Self {
            registers,
            filling: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<IovaRange>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfer(&self, source: u64, destination: u64, len: u64, direction: u64) {
        let registers = &self.registers;
        registers.set64(SOURCE, source);
        registers.set64(DESTINATION, destination);
        registers.set64(COUNT, len);
        registers.set64(COMMAND, START | direction);
        while registers.get64(COMMAND) & START != 0 {
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Engine for Edu {
    fn name(&self) -> &'static str {
        "edu"
    }

    fn limits(&self) -> Limits {
        Limits {
            unit: 1,
            depth: 1,
            pages: 8,
            race: 50,
            reads: Reads::Yes,
            landing: Landing::AtOnce,
        }
    }

    fn begin(&self, scratch: &Scratch) -> Result<()> {
        let page = scratch.page(0);
        scratch
            .memory()
            .write(scratch.offset_of(page), &[FILLING; PAGE as usize])?;
        *self.lock() = Some(page);
        self.read(page)
    }

    fn write(&self, ranges: &[IovaRange]) -> Result<()> {
        let _one_at_a_time = self.lock();
        for (start, len) in ranges.iter().flat_map(pieces) {
            self.transfer(BUFFER, start, len, TO_MEMORY);
        }
        Ok(())
    }

    fn read(&self, range: IovaRange) -> Result<()> {
        let filling = self.lock();
        let filling = filling.context("the buffer is not filled yet")?;
        for (start, len) in [range, filling].iter().flat_map(pieces) {
            self.transfer(start, BUFFER, len, 0);
        }
        Ok(())
    }
}

/// Starts and lengths that the buffer has room for.
fn pieces(range: &IovaRange) -> impl Iterator<Item = (u64, u64)> + use<> {
    let last = range.last().get();
    (range.start().get()..=last)
        .step_by(BUFFER_LEN as usize)
        .map(move |start| (start, (last - start + 1).min(BUFFER_LEN)))
}
