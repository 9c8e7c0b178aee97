//! [`Queue`]: a pair of queues in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::PATIENCE;
use crate::memory::{Memory, Scratch};
use crate::pages::PAGE;

/// Entries of each queue; one fewer can be used at a time.
pub(super) const ENTRIES: u16 = 64;
const SUBMISSION: u64 = 64;
const COMPLETION: u64 = 16;

/// A submission and a completion queue of the same number.
pub(super) struct Queue {
    pub(super) number: u16,
    pub(super) tail: u16,
    pub(super) head: u16,
    memory: Arc<dyn Memory>,
    /// Where they are.
    submissions: u64,
    completions: u64,
    /// What new completions have in their phase bit.
    phase: bool,
}

/// A command, as far as it is used here.
#[derive(Clone, Copy, Default)]
pub(super) struct Command {
    pub(super) opcode: u32,
    pub(super) namespace: u32,
    pub(super) data: u64,
    pub(super) words: [u32; 3],
}

impl Queue {
    /// The queues in two pages of `scratch`, from `page` on.
    pub(super) fn new(number: u16, scratch: &Scratch, page: u64) -> Result<Self> {
        let start = scratch.page(page).start;
        scratch.memory.write(start, &[0; 2 * PAGE as usize])?;
        Ok(Self {
            number,
            tail: 0,
            head: 0,
            memory: Arc::clone(&scratch.memory),
            submissions: start,
            completions: start + PAGE,
            phase: true,
        })
    }

    pub(super) fn submit(&mut self, command: &Command, id: u16) -> Result<()> {
        let mut entry = [0; SUBMISSION as usize];
        let mut set = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, &(command.opcode | u32::from(id) << 16).to_le_bytes());
        set(4, &command.namespace.to_le_bytes());
        set(24, &command.data.to_le_bytes());
        for (word, at) in command.words.iter().zip([40, 44, 48]) {
            set(at, &word.to_le_bytes());
        }
        let at = self.submissions + u64::from(self.tail) * SUBMISSION;
        self.memory.write(at, &entry)?;
        self.tail = (self.tail + 1) % ENTRIES;
        Ok(())
    }

    /// Waits for a completion: which command it is of, and its status field.
    pub(super) fn next_completion(&mut self) -> Result<(u16, u16)> {
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
