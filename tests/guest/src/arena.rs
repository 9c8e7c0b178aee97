//! Memory that descriptors work on, and what it must hold.
//!
//! The arena is cut into slots. Each batch of descriptors writes some of them and reads others, never the same, because descriptors
//! run in any order. The shadow has the effect of a batch as soon as it is planned, in the program's own memory, where the device
//! does not reach.

use std::collections::HashMap;
use std::fmt;

use crate::memory::Memory;
use crate::random::{Random, mix};
use crate::regs;
use crate::ring::{Completion, Descriptor, Operation};

/// Bytes of a slot.
const SLOT: u64 = 32 << 10;

/// Slots.
const SLOTS: u64 = 32;

/// Memory under a device's descriptors, with its shadow.
pub struct Arena {
    base: u64,
    shadow: Vec<u8>,
    random: Random,
    history: u64,
}

/// Descriptors that can run in any order, and what must come of them.
pub struct Batch {
    descriptors: Vec<Descriptor>,
    results: HashMap<u64, u64>,
}

/// A byte that is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub iova: u64,
    /// What the shadow has.
    pub expected: u8,
    /// What memory has.
    pub found: u8,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "byte {:#x} must be {:#04x}, is {:#04x}",
            self.iova, self.expected, self.found
        )
    }
}

impl Arena {
    /// Bytes of an arena.
    pub const SIZE: u64 = SLOT * SLOTS;

    /// Lays an arena out at `base` with random content.
    ///
    /// # Errors
    ///
    /// There is no memory there.
    pub fn new<M: Memory>(memory: &M, base: u64, seed: u64) -> Result<Self, M::Error> {
        let mut random = Random::new(seed);
        let mut shadow = vec![0; Self::SIZE as usize];
        random.fill(&mut shadow);
        memory.write(base, &shadow)?;
        Ok(Self {
            base,
            shadow,
            random,
            history: seed,
        })
    }

    /// IOVA of the arena.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// CRC-32C of what the arena must hold.
    pub fn crc(&self) -> u32 {
        crc32c::crc32c(&self.shadow)
    }

    /// A hash of every batch so far, in their order.
    pub fn history(&self) -> u64 {
        self.history
    }

    /// Plans up to `SLOTS / 2` descriptors, at least one.
    pub fn plan(&mut self) -> Batch {
        let mut slots: Vec<u64> = (0..SLOTS).collect();
        self.random.shuffle(&mut slots);
        let (dests, sources) = slots.split_at((1 + self.random.below(SLOTS / 2)) as usize);
        let mut batch = Batch {
            descriptors: Vec::new(),
            results: HashMap::new(),
        };
        for dest in dests {
            let operation = self.operation(*dest, sources);
            let cookie = self.random.number();
            let result = self.apply(operation);
            self.history = mix(self.history ^ result).wrapping_add(cookie);
            batch.descriptors.push(Descriptor::new(operation, cookie));
            batch.results.insert(cookie, result);
        }
        batch
    }

    fn operation(&mut self, dest_slot: u64, sources: &[u64]) -> Operation {
        let length = self.random.below(SLOT) + 1;
        let source_slot = sources[self.random.below(sources.len() as u64) as usize];
        let source = self.place(source_slot, length);
        let dest = self.place(dest_slot, length);
        match self.random.below(8) {
            0 => Operation::Nop,
            1 | 2 => Operation::Crc { source, length },
            3 | 4 => Operation::Fill {
                pattern: self.random.number(),
                dest,
                length,
            },
            _ => Operation::Copy { source, dest, length },
        }
    }

    /// An IOVA from which `length` bytes fit into the slot.
    fn place(&mut self, slot: u64, length: u64) -> u64 {
        self.base + slot * SLOT + self.random.below(SLOT - length + 1)
    }

    /// Does to the shadow what the device must do to memory; returns the completion's result.
    fn apply(&mut self, operation: Operation) -> u64 {
        let base = self.base;
        let range = |iova: u64, length: u64| (iova - base) as usize..(iova - base + length) as usize;
        match operation {
            Operation::Nop => 0,
            Operation::Copy { source, dest, length } => {
                let target = range(dest, length).start;
                self.shadow.copy_within(range(source, length), target);
                length
            }
            Operation::Fill {
                pattern,
                dest,
                length,
            } => {
                let pattern = pattern.to_le_bytes();
                for (index, byte) in self.shadow[range(dest, length)].iter_mut().enumerate() {
                    *byte = pattern[index % 8];
                }
                length
            }
            Operation::Crc { source, length } => {
                u64::from(crc32c::crc32c(&self.shadow[range(source, length)]))
            }
        }
    }

    /// Compares all of the arena with its shadow; nothing may be writing.
    ///
    /// # Errors
    ///
    /// There is no memory there any more.
    pub fn damage<M: Memory>(&self, memory: &M) -> Result<Option<Damage>, M::Error> {
        let mut found = vec![0; self.shadow.len()];
        memory.read(self.base, &mut found)?;
        let first = (0..found.len()).find(|index| found[*index] != self.shadow[*index]);
        Ok(first.map(|index| Damage {
            iova: self.base + index as u64,
            expected: self.shadow[index],
            found: found[index],
        }))
    }
}

impl Batch {
    /// The descriptors, to be pushed in this order.
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// Completions that are still to come.
    pub fn outstanding(&self) -> usize {
        self.results.len()
    }

    /// Takes a completion off the batch.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn complete(&mut self, completion: &Completion) -> Result<(), String> {
        let Some(result) = self.results.remove(&completion.cookie) else {
            return Err(format!(
                "a completion that nothing asked for, or a second one: {completion:?}"
            ));
        };
        if completion.status != regs::ERROR_NONE || completion.result != result {
            return Err(format!(
                "a completion with result {result:#x} was due: {completion:?}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Batch, Completion, Operation, SLOT};
    use crate::memory::{Flat, Memory};

    const BASE: u64 = 0x10_0000;

    fn arena() -> (Flat, Arena) {
        let memory = Flat::new(BASE, Arena::SIZE);
        let arena = Arena::new(&memory, BASE, 4).expect("an arena");
        (memory, arena)
    }

    /// A device in the words of the register map.
    fn run(memory: &Flat, batch: &mut Batch) {
        for descriptor in batch.descriptors().to_vec().iter().rev() {
            let mut data = vec![0; descriptor.length as usize];
            let mut result = descriptor.length;
            match descriptor.opcode {
                0 => {}
                1 => {
                    memory.read(descriptor.source, &mut data).expect("a source");
                    memory.write(descriptor.dest, &data).expect("a destination");
                }
                2 => {
                    for (index, byte) in data.iter_mut().enumerate() {
                        *byte = descriptor.source.to_le_bytes()[index % 8];
                    }
                    memory.write(descriptor.dest, &data).expect("a destination");
                }
                _ => {
                    memory.read(descriptor.source, &mut data).expect("a source");
                    result = u64::from(crc32c::crc32c(&data));
                }
            }
            let completion = Completion {
                cookie: descriptor.cookie,
                result,
                ..Completion::default()
            };
            batch.complete(&completion).expect("the completion is right");
        }
    }

    #[test]
    fn the_shadow_knows_what_a_device_leaves_in_any_order() {
        let (memory, mut arena) = arena();
        for _ in 0..200 {
            let mut batch = arena.plan();
            run(&memory, &mut batch);
            assert_eq!(batch.outstanding(), 0);
            assert_eq!(arena.damage(&memory), Ok(None));
        }
        let mut content = vec![0; Arena::SIZE as usize];
        memory.read(BASE, &mut content).expect("the arena");
        assert_eq!(arena.crc(), crc32c::crc32c(&content));
    }

    #[test]
    fn one_byte_that_was_not_written_is_found() {
        let (memory, mut arena) = arena();
        arena.apply(Operation::Fill {
            pattern: 0,
            dest: BASE + SLOT + 5,
            length: 4096,
        });
        assert!(arena.damage(&memory).expect("memory").is_some());
        memory.write(BASE + SLOT + 5, &[0; 4095]).expect("memory");
        let damage = arena.damage(&memory).expect("memory").expect("damage");
        assert_eq!((damage.iova, damage.expected), (BASE + SLOT + 5 + 4095, 0));
    }

    #[test]
    fn completions_that_are_wrong_strange_or_doubled_are_refused() {
        let (_memory, mut arena) = arena();
        let mut batch = arena.plan();
        let cookie = batch.descriptors()[0].cookie;
        let right = Completion {
            cookie,
            result: batch.results[&cookie],
            ..Completion::default()
        };
        let strange = Completion {
            cookie: !cookie,
            ..right
        };
        assert!(batch.complete(&strange).is_err());
        batch.complete(&right).expect("the completion is right");
        assert!(batch.complete(&right).is_err());

        let mut batch = arena.plan();
        let cookie = batch.descriptors()[0].cookie;
        let wrong = Completion {
            cookie,
            result: batch.results[&cookie] + 1,
            ..Completion::default()
        };
        assert!(batch.complete(&wrong).is_err());
    }
}
