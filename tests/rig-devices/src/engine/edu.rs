//! QEMU's `edu`, which takes a tenth of a second for each transfer; see its `docs/specs/edu.rst`.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Engine, Landing, Limits, Outcome, Reads};
use crate::memory::Scratch;
use crate::pages::PAGE;
use crate::race::Goal;
use crate::registers::Registers;

pub(super) const LIMITS: Limits = Limits {
    unit: 1,
    depth: 1,
    pages: 8,
    race: Goal {
        writes: 50,
        reads: 50,
    },
    reads: Reads::Yes,
    landing: Landing::AtOnce,
};

/// Says what a driver should know it by.
pub const IDENTIFICATION: u64 = 0x00;
/// Answers with the inverse of what is written.
pub const LIVENESS: u64 = 0x04;
/// Raises the interrupt, with what is written as its cause.
pub const RAISE: u64 = 0x60;
/// Takes causes back.
pub const ACKNOWLEDGE: u64 = 0x64;

/// These have 64 bits, and take all of their value by their lower half, too.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

const START: u32 = 1;
const TO_MEMORY: u32 = 2;

/// Where the device has a buffer of [`BUFFER_LEN`] bytes.
const BUFFER: u64 = 0x4_0000;
const BUFFER_LEN: u64 = 4096;
/// What the buffer is filled with.
const FILLING: u8 = 0xed;

const LOOK_AGAIN: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// The device, whose buffer is filled from a page of memory.
#[derive(Default)]
pub(super) struct Edu {
    filling: Option<Range<u64>>,
}

fn transfer(
    registers: &mut dyn Registers,
    source: u64,
    destination: u64,
    len: u64,
    direction: u32,
) -> Result<()> {
    registers.write64(SOURCE, source)?;
    registers.write64(DESTINATION, destination)?;
    registers.write64(COUNT, len)?;
    registers.write32(COMMAND, START | direction)?;
    let deadline = Instant::now() + PATIENCE;
    while registers.read32(COMMAND)? & START != 0 {
        ensure!(Instant::now() < deadline, "edu does not come to an end");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn fill_buffer(registers: &mut dyn Registers, from: &Range<u64>) -> Result<()> {
    pieces(from).try_for_each(|(start, len)| transfer(registers, start, BUFFER, len, 0))
}

impl Engine for Edu {
    fn begin(&mut self, registers: &mut dyn Registers, scratch: &Scratch) -> Result<()> {
        let page = scratch.page(0);
        scratch.memory.write(page.start, &[FILLING; PAGE as usize])?;
        fill_buffer(registers, &page)?;
        self.filling = Some(page);
        Ok(())
    }

    fn write(&mut self, registers: &mut dyn Registers, ranges: &[Range<u64>]) -> Result<Outcome> {
        for (start, len) in ranges.iter().flat_map(pieces) {
            transfer(registers, BUFFER, start, len, TO_MEMORY)?;
        }
        Ok(Outcome::Written)
    }

    fn read(&mut self, registers: &mut dyn Registers, range: Range<u64>) -> Result<()> {
        let filling = self.filling.as_ref().context("the buffer is not filled yet")?;
        fill_buffer(registers, &range)?;
        fill_buffer(registers, filling)
    }
}

/// Starts and lengths that the buffer has room for.
fn pieces(range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    let end = range.end;
    range
        .clone()
        .step_by(BUFFER_LEN as usize)
        .map(move |start| (start, (end - start).min(BUFFER_LEN)))
}
