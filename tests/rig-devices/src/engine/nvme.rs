//! An NVMe controller with one namespace of 512-byte blocks, none of which has a byte that is zero.
//!
//! The least that a driver has to do (NVMe base specification, revision 1.4): an admin queue to make one pair of I/O
//! queues with, and polling instead of interrupts. A *write to memory* is a Read command of whole blocks; where it goes says which block
//! is read, so that memory tells what it should hold.

mod queue;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Completions, Engine, Landing, Limits, Outcome, Reads};
use crate::memory::Scratch;
use crate::pages::PAGE;
use crate::race::Goal;
use crate::registers::Registers;
use queue::{Command, ENTRIES, Queue};

pub(super) const LIMITS: Limits = Limits {
    unit: BLOCK,
    depth: 32,
    pages: 500,
    race: Goal {
        writes: 40_000,
        reads: 2000,
    },
    reads: Reads::Yes,
    landing: Landing::Later,
};

mod register {
    pub(super) const CAPABILITIES_HIGH: u64 = 0x04;
    pub(super) const CONFIGURATION: u64 = 0x14;
    pub(super) const STATUS: u64 = 0x1c;
    pub(super) const ADMIN_QUEUES: u64 = 0x24;
    pub(super) const ADMIN_COMPLETIONS: u64 = 0x30;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

/// The address of a queue, which matters when the controller is enabled: it keeps what is written.
pub const ADMIN_SUBMISSIONS: u64 = 0x28;

const ENABLE: u32 = 1;
/// Entries of 64 and 16 bytes.
const ENTRY_SIZES: u32 = (6 << 16) | (4 << 20);
const READY: u32 = 1;

const CREATE_SUBMISSIONS: u32 = 0x01;
const CREATE_COMPLETIONS: u32 = 0x05;
const PHYSICALLY_CONTIGUOUS: u32 = 1;
/// Of completions: by the first vector.
const INTERRUPTS: u32 = 2;
const READ: u32 = 0x02;
const COMPARE: u32 = 0x05;
/// The two blocks that Compare was to compare differ.
const COMPARE_FAILURE: u16 = 0x285;

const BLOCK: u64 = 512;
/// Blocks of the drive that are read, in turn.
const BLOCKS: u64 = 16 << 11;
const PATIENCE: Duration = Duration::from_secs(20);

/// The controller.
pub(super) struct Nvme {
    completions: Completions,
    /// `None` before the first [`begin`](Engine::begin).
    io: Option<Queue>,
}

impl Nvme {
    pub(super) fn new(completions: Completions) -> Self {
        Self {
            completions,
            io: None,
        }
    }

    fn run(&mut self, registers: &mut dyn Registers, commands: &[Command]) -> Result<Vec<u16>> {
        let io = self.io.as_mut().context("the controller has no queues yet")?;
        run(registers, io, commands)
    }
}

fn set_configuration(registers: &mut dyn Registers, configuration: u32) -> Result<()> {
    registers.write32(register::CONFIGURATION, configuration)?;
    let deadline = Instant::now() + PATIENCE;
    while (registers.read32(register::STATUS)? & READY != 0) != (configuration & ENABLE != 0) {
        ensure!(Instant::now() < deadline, "the controller is not ready in time");
    }
    Ok(())
}

/// Submits `commands`, waits for all, and returns their status fields.
fn run(registers: &mut dyn Registers, queue: &mut Queue, commands: &[Command]) -> Result<Vec<u16>> {
    let mut statuses = vec![0; commands.len()];
    let most = usize::from(ENTRIES - 1);
    for (batch, statuses) in commands.chunks(most).zip(statuses.chunks_mut(most)) {
        for (id, command) in (0..).zip(batch) {
            queue.submit(command, id)?;
        }
        ring(registers, queue.number, Doorbell::Submissions, queue.tail)?;
        for _ in batch {
            let (id, status) = queue.next_completion()?;
            let slot = statuses.get_mut(usize::from(id));
            *slot.context("a completion of nothing")? = status;
        }
        ring(registers, queue.number, Doorbell::Completions, queue.head)?;
    }
    Ok(statuses)
}

enum Doorbell {
    Submissions = 0,
    Completions = 1,
}

fn ring(registers: &mut dyn Registers, queue: u16, doorbell: Doorbell, value: u16) -> Result<()> {
    let stride = 4 << (registers.read32(register::CAPABILITIES_HIGH)? & 0xf);
    let number = 2 * u64::from(queue) + doorbell as u64;
    registers.write32(register::DOORBELLS + number * stride, value.into())
}

impl Engine for Nvme {
    fn begin(&mut self, registers: &mut dyn Registers, scratch: &Scratch) -> Result<()> {
        let address = |page| scratch.page(page).start;
        let last_entry = u32::from(ENTRIES - 1);
        set_configuration(registers, 0)?;
        let mut admin = Queue::new(0, scratch, 0)?;
        let queue = Queue::new(1, scratch, 2)?;
        registers.write32(register::ADMIN_QUEUES, last_entry << 16 | last_entry)?;
        registers.write64(ADMIN_SUBMISSIONS, address(0))?;
        registers.write64(register::ADMIN_COMPLETIONS, address(1))?;
        set_configuration(registers, ENABLE | ENTRY_SIZES)?;
        let size_and_number = last_entry << 16 | u32::from(queue.number);
        let create = |opcode, page, flags| Command {
            opcode,
            data: address(page),
            words: [size_and_number, flags, 0],
            ..Command::default()
        };
        let interrupts = match self.completions {
            Completions::Quiet => 0,
            Completions::Interrupt => INTERRUPTS,
        };
        let completions_number = u32::from(queue.number) << 16;
        for command in [
            create(CREATE_COMPLETIONS, 3, PHYSICALLY_CONTIGUOUS | interrupts),
            create(CREATE_SUBMISSIONS, 2, PHYSICALLY_CONTIGUOUS | completions_number),
        ] {
            let statuses = run(registers, &mut admin, &[command])?;
            ensure!(statuses == [0], "no I/O queues: status {statuses:x?}");
        }
        self.io = Some(queue);
        Ok(())
    }

    fn write(&mut self, registers: &mut dyn Registers, ranges: &[Range<u64>]) -> Result<Outcome> {
        let commands: Vec<Command> = ranges.iter().flat_map(|range| transfers(READ, range)).collect();
        let statuses = self.run(registers, &commands)?;
        ensure!(statuses.iter().all(|status| *status == 0), "status {statuses:x?}");
        Ok(Outcome::Written)
    }

    fn read(&mut self, registers: &mut dyn Registers, range: Range<u64>) -> Result<()> {
        let statuses = self.run(registers, &transfers(COMPARE, &range))?;
        let is_done = |status: &u16| matches!(status & 0x7ff, 0 | COMPARE_FAILURE);
        ensure!(statuses.iter().all(is_done), "status {statuses:x?}");
        Ok(())
    }
}

/// The transfers of the blocks of memory that `range` touches, each of which stays in a page.
fn transfers(opcode: u32, range: &Range<u64>) -> Vec<Command> {
    let (start, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
    let per_page = PAGE / BLOCK;
    let page_starts = (start / per_page + 1..end.div_ceil(per_page)).map(|page| page * per_page);
    let starts: Vec<u64> = std::iter::once(start).chain(page_starts).collect();
    let ends = starts[1..].iter().copied().chain([end]);
    let transfer = |(start, end): (u64, u64)| Command {
        opcode,
        namespace: 1,
        data: start * BLOCK,
        words: [(start % BLOCKS) as u32, 0, (end - start - 1) as u32],
    };
    starts.iter().copied().zip(ends).map(transfer).collect()
}

#[cfg(test)]
mod tests {
    use super::{READ, transfers};

    #[test]
    fn transfers_are_of_whole_blocks_and_stay_in_a_page() {
        let ends = |range| {
            let commands = transfers(READ, &range);
            let ends = |command: &super::Command| (command.data, command.words[0], command.words[2]);
            commands.iter().map(ends).collect::<Vec<_>>()
        };
        assert_eq!(ends(4096..4100), [(4096, 8, 0)]);
        assert_eq!(ends(1000..8193), [(512, 1, 6), (4096, 8, 7), (8192, 16, 0)]);
    }
}
