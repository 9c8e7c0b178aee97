//! The driver's half of the descriptor and completion rings.

use std::time::{Duration, Instant};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::memory::{Memory, PAGE_SIZE};
use crate::regs;

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing but a completion.
    Nop,
    /// Copies `length` bytes.
    Copy {
        /// IOVA read.
        source: u64,
        /// IOVA written.
        dest: u64,
        /// Bytes.
        length: u64,
    },
    /// Repeats an 8-byte pattern.
    Fill {
        /// The pattern.
        pattern: u64,
        /// IOVA written.
        dest: u64,
        /// Bytes.
        length: u64,
    },
    /// CRC-32C of `length` bytes.
    Crc {
        /// IOVA read.
        source: u64,
        /// Bytes.
        length: u64,
    },
}

/// A descriptor as it lies in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// What to do.
    pub opcode: u32,
    /// `regs::DESCRIPTOR_INTERRUPT`.
    pub flags: u32,
    /// IOVA read, or a pattern.
    pub source: u64,
    /// IOVA written.
    pub dest: u64,
    /// Bytes.
    pub length: u64,
    /// Returned in the completion.
    pub cookie: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

impl Descriptor {
    /// A descriptor that raises an interrupt when it is done.
    pub fn new(operation: Operation, cookie: u64) -> Self {
        let (opcode, source, dest, length) = match operation {
            Operation::Nop => (0, 0, 0, 0),
            Operation::Copy { source, dest, length } => (1, source, dest, length),
            Operation::Fill {
                pattern,
                dest,
                length,
            } => (2, pattern, dest, length),
            Operation::Crc { source, length } => (3, source, 0, length),
        };
        Self {
            opcode,
            flags: regs::DESCRIPTOR_INTERRUPT,
            source,
            dest,
            length,
            cookie,
            reserved: [0; 3],
        }
    }
}

/// A completion as it lies in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// The descriptor's.
    pub cookie: u64,
    /// A CRC, or the bytes done.
    pub result: u64,
    /// The descriptor's index, free running.
    pub index: u32,
    /// An error code (`regs::ERROR_*`).
    pub status: u32,
    /// Zero.
    pub reserved: u32,
    /// Which pass over the ring this is from.
    pub phase: u32,
}

/// Offset of [`Completion::phase`].
const PHASE: u64 = 0x1c;

/// A descriptor ring and its completion ring, in guest memory.
#[derive(Clone)]
pub struct Ring<M> {
    memory: M,
    descriptors: u64,
    completions: u64,
    entries: u32,
    published: u32,
    consumed: u32,
}

impl<M: Memory + Clone> Ring<M> {
    /// Bytes of guest memory that a ring takes.
    pub fn size(entries: u32) -> u64 {
        let bytes = u64::from(entries) * (regs::DESCRIPTOR_SIZE + regs::COMPLETION_SIZE);
        bytes.next_multiple_of(PAGE_SIZE)
    }

    /// Lays a ring out at `base` and clears it.
    ///
    /// # Errors
    ///
    /// There is no guest memory there.
    pub fn new(memory: &M, base: u64, entries: u32) -> Result<Self, M::Error> {
        memory.write(base, &vec![0; Self::size(entries) as usize])?;
        Ok(Self {
            memory: memory.clone(),
            descriptors: base,
            completions: base + u64::from(entries) * regs::DESCRIPTOR_SIZE,
            entries,
            published: 0,
            consumed: 0,
        })
    }

    /// The same ring in the memory of another VM: the driver after a migration.
    #[must_use]
    pub fn moved_to(&self, memory: &M) -> Self {
        Self {
            memory: memory.clone(),
            ..self.clone()
        }
    }

    /// IOVA of the descriptors.
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// IOVA of the completions.
    pub fn completions(&self) -> u64 {
        self.completions
    }

    /// Entries of each ring.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Descriptors pushed so far: what `RING_TAIL` must become.
    pub fn published(&self) -> u32 {
        self.published
    }

    /// Completions taken so far: what `COMP_HEAD` must become.
    pub fn consumed(&self) -> u32 {
        self.consumed
    }

    /// Descriptors pushed whose completion was not taken.
    pub fn outstanding(&self) -> u32 {
        self.published.wrapping_sub(self.consumed)
    }

    /// Writes a descriptor into the next slot and returns its index, or `None` when the ring is full.
    ///
    /// # Errors
    ///
    /// There is no guest memory there any more.
    pub fn push(&mut self, descriptor: &Descriptor) -> Result<Option<u32>, M::Error> {
        if self.outstanding() >= self.entries {
            return Ok(None);
        }
        let index = self.published;
        let slot = u64::from(index % self.entries);
        self.memory.write(
            self.descriptors + slot * regs::DESCRIPTOR_SIZE,
            descriptor.as_bytes(),
        )?;
        self.published = index.wrapping_add(1);
        Ok(Some(index))
    }

    /// Takes the next completion, if there is one.
    ///
    /// # Errors
    ///
    /// There is no guest memory there any more.
    pub fn poll(&mut self) -> Result<Option<Completion>, M::Error> {
        let slot = u64::from(self.consumed % self.entries);
        let address = self.completions + slot * regs::COMPLETION_SIZE;
        let expected = u32::from((self.consumed / self.entries).is_multiple_of(2));
        if self.memory.load_acquire(address + PHASE)? != expected {
            return Ok(None);
        }
        let mut bytes = [0; size_of::<Completion>()];
        self.memory.read(address, &mut bytes)?;
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some(zerocopy::transmute!(bytes)))
    }

    /// Waits for the next completion, `None` when there is none in time.
    ///
    /// # Errors
    ///
    /// There is no guest memory there any more.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Completion>, M::Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(completion) = self.poll()? {
                return Ok(Some(completion));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}
