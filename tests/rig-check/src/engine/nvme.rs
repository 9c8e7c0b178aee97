//! An NVMe controller with one namespace of 512-byte blocks, none of which has a byte that is zero.
//!
//! The least that a driver has to do (NVMe base specification, revision 1.4): an admin queue to make one pair of I/O
//! queues with, and polling instead of interrupts. A *write to memory* is a Read command of whole blocks; where it goes says which block
//! is read, so that memory tells what it should hold.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_tracker::IovaRange;

use super::{Engine, Landing, Limits, Reads};
use crate::memory::{Memory, PAGE};
use crate::registers::Registers;
use crate::scratch::Scratch;

mod register {
    pub(super) const CAPABILITIES: u64 = 0x00;
    pub(super) const CONFIGURATION: u64 = 0x14;
    pub(super) const STATUS: u64 = 0x1c;
    pub(super) const ADMIN_QUEUES: u64 = 0x24;
    pub(super) const ADMIN_SUBMISSIONS: u64 = 0x28;
    pub(super) const ADMIN_COMPLETIONS: u64 = 0x30;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

const ENABLE: u32 = 1;
/// Entries of 64 and 16 bytes.
const ENTRY_SIZES: u32 = (6 << 16) | (4 << 20);
const READY: u32 = 1;

const CREATE_SUBMISSIONS: u32 = 0x01;
const CREATE_COMPLETIONS: u32 = 0x05;
const PHYSICALLY_CONTIGUOUS: u32 = 1;
const READ: u32 = 0x02;
const COMPARE: u32 = 0x05;
/// The two blocks that Compare was to compare differ.
const COMPARE_FAILURE: u16 = 0x285;

const BLOCK: u64 = 512;
/// Blocks of the drive that are read, in turn.
const BLOCKS: u64 = 16 << 11;
/// Entries of each queue; one fewer can be used at a time.
const ENTRIES: u16 = 64;
const SUBMISSION: u64 = 64;
const COMPLETION: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Nvme {
    registers: Registers,
    /// `None` before the first [`begin`](Engine::begin).
    io: Mutex<Option<Queue>>,
}

/// A submission and a completion queue of the same number.
struct Queue {
    number: u16,
    memory: Memory,
    /// Where they are in `memory`.
    submissions: u64,
    completions: u64,
    tail: u16,
    head: u16,
    /// What new completions have in their phase bit.
    phase: bool,
}

/// A command, as far as it is used here.
#[derive(Clone, Copy, Default)]
struct Command {
    opcode: u32,
    namespace: u32,
    data: u64,
    words: [u32; 3],
}

impl Nvme {
    pub(super) fn new(registers: Registers) -> Self {
        Self {
            registers,
            io: Mutex::new(None),
        }
    }

    fn set_enabled(&self, configuration: u32) -> Result<()> {
        self.registers.set32(register::CONFIGURATION, configuration);
        let deadline = Instant::now() + PATIENCE;
        while (self.registers.get32(register::STATUS) & READY != 0) != (configuration & ENABLE != 0) {
            ensure!(Instant::now() < deadline, "the controller is not ready in time");
        }
        Ok(())
    }

    /// Submits `commands`, waits for all, and returns their status fields.
    fn run(&self, queue: &mut Queue, commands: &[Command]) -> Result<Vec<u16>> {
        let mut statuses = vec![0; commands.len()];
        for (batch, statuses) in commands
            .chunks(usize::from(ENTRIES - 1))
            .zip(statuses.chunks_mut(usize::from(ENTRIES - 1)))
        {
            for (id, command) in (0..).zip(batch) {
                queue.submit(command, id)?;
            }
            self.ring(queue.number, Doorbell::Submissions, queue.tail);
            for _ in batch {
                let (id, status) = queue.next_completion()?;
                let slot = statuses.get_mut(usize::from(id));
                *slot.context("a completion of nothing")? = status;
            }
            self.ring(queue.number, Doorbell::Completions, queue.head);
        }
        Ok(statuses)
    }

    fn run_all(&self, commands: &[Command]) -> Result<Vec<u16>> {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(io.as_mut().context("the controller has no queues yet")?, commands)
    }

    fn ring(&self, queue: u16, doorbell: Doorbell, value: u16) {
        let stride = 4 << (self.registers.get64(register::CAPABILITIES) >> 32 & 0xf);
        let number = 2 * u64::from(queue) + doorbell as u64;
        self.registers
            .set32(register::DOORBELLS + number * stride, value.into());
    }
}

enum Doorbell {
    Submissions = 0,
    Completions = 1,
}

impl Queue {
    /// The queues in two pages of `scratch`, from `page` on.
    fn new(number: u16, scratch: &Scratch, page: u64) -> Result<Self> {
        let memory = scratch.memory().clone();
        memory.clear(page * PAGE, 2 * PAGE)?;
        Ok(Self {
            number,
            memory,
            submissions: page * PAGE,
            completions: (page + 1) * PAGE,
            tail: 0,
            head: 0,
            phase: true,
        })
    }

    fn submit(&mut self, command: &Command, id: u16) -> Result<()> {
        let mut entry = [0; SUBMISSION as usize];
        let mut set = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, &(command.opcode | u32::from(id) << 16).to_le_bytes());
        set(4, &command.namespace.to_le_bytes());
        set(24, &command.data.to_le_bytes());
        for (word, at) in command.words.iter().zip([40, 44, 48]) {
            set(at, &word.to_le_bytes());
        }
        self.memory
            .write(self.submissions + u64::from(self.tail) * SUBMISSION, &entry)?;
        self.tail = (self.tail + 1) % ENTRIES;
        Ok(())
    }

    /// Waits for a completion: which command it is of, and its status field.
    fn next_completion(&mut self) -> Result<(u16, u16)> {
        let at = self.completions + u64::from(self.head) * COMPLETION + 12;
        let deadline = Instant::now() + PATIENCE;
        let [id_low, id_high, low, high] = loop {
            let word = self.memory.load32(at)?.to_le_bytes();
            if (word[2] & 1 == 1) == self.phase {
                break word;
            }
            ensure!(Instant::now() < deadline, "a command does not complete in time");
            std::thread::yield_now();
        };
        self.head = (self.head + 1) % ENTRIES;
        if self.head == 0 {
            self.phase = !self.phase;
        }
        let status = u16::from_le_bytes([low, high]) >> 1;
        Ok((u16::from_le_bytes([id_low, id_high]), status))
    }
}

impl Engine for Nvme {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn limits(&self) -> Limits {
        Limits {
            unit: BLOCK,
            depth: 32,
            pages: 500,
            race: 20_000,
            reads: Reads::Yes,
            landing: Landing::Later,
        }
    }

    fn begin(&self, scratch: &Scratch) -> Result<()> {
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        let address = |page| scratch.page(page).start().get();
        let last_entry = u32::from(ENTRIES - 1);
        self.set_enabled(0)?;
        let mut admin = Queue::new(0, scratch, 0)?;
        let mut queue = Queue::new(1, scratch, 2)?;
        self.registers
            .set32(register::ADMIN_QUEUES, last_entry << 16 | last_entry);
        self.registers.set64(register::ADMIN_SUBMISSIONS, address(0));
        self.registers.set64(register::ADMIN_COMPLETIONS, address(1));
        self.set_enabled(ENABLE | ENTRY_SIZES)?;
        let size_and_number = last_entry << 16 | u32::from(queue.number);
        let create = |opcode, page, flags| Command {
            opcode,
            data: address(page),
            words: [size_and_number, flags, 0],
            ..Command::default()
        };
        let completions_number = u32::from(queue.number) << 16;
        for command in [
            create(CREATE_COMPLETIONS, 3, PHYSICALLY_CONTIGUOUS),
            create(CREATE_SUBMISSIONS, 2, PHYSICALLY_CONTIGUOUS | completions_number),
        ] {
            let statuses = self.run(&mut admin, &[command])?;
            ensure!(statuses == [0], "no I/O queues: status {statuses:x?}");
        }
        queue.tail = 0;
        *io = Some(queue);
        Ok(())
    }

    fn write(&self, ranges: &[IovaRange]) -> Result<()> {
        let commands: Vec<Command> = ranges.iter().flat_map(|range| transfers(READ, range)).collect();
        let statuses = self.run_all(&commands)?;
        ensure!(statuses.iter().all(|status| *status == 0), "status {statuses:x?}");
        Ok(())
    }

    fn read(&self, range: IovaRange) -> Result<()> {
        let statuses = self.run_all(&transfers(COMPARE, &range))?;
        let is_done = |status: &u16| matches!(status & 0x7ff, 0 | COMPARE_FAILURE);
        ensure!(statuses.iter().all(is_done), "status {statuses:x?}");
        Ok(())
    }
}

/// The transfers of the blocks of memory that `range` touches, each of which stays in a page.
fn transfers(opcode: u32, range: &IovaRange) -> Vec<Command> {
    let (start, end) = (range.start().get() / BLOCK, range.last().get() / BLOCK + 1);
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
