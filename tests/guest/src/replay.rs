//! Compares a generator's window with what its positions say it must hold.

use std::fmt;

use crate::generator::{Generator, LaneWrite};
use crate::memory::{Memory, PAGE_SIZE};

/// A page that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The page.
    pub iova: u64,
    /// The write it must hold.
    pub expected: LaneWrite,
    /// Number of the write that it seems to hold, from its first word.
    pub found: u64,
    /// First byte that differs.
    pub first_difference: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "page {:#x} must hold write {} of its lane, holds {} (first difference at byte {})",
            self.iova, self.expected.number, self.found, self.first_difference
        )
    }
}

/// Checks every page of the window that was written when the lanes stood at `positions`; nothing may be writing. Pages that
/// were never written are not looked at.
///
/// # Errors
///
/// The window does not lie in guest memory.
pub fn check_window<M: Memory>(
    memory: &M,
    generator: &Generator,
    positions: &[u64],
) -> Result<Vec<Mismatch>, M::Error> {
    let mut wrong = Vec::new();
    let mut page = [0; PAGE_SIZE as usize];
    for write in generator.last_writes(positions).into_iter().flatten() {
        let iova = generator.base + write.page * PAGE_SIZE;
        memory.read(iova, &mut page)?;
        let expected = write.content();
        let Some(first_difference) = (0..page.len()).find(|index| page[*index] != expected[*index]) else {
            continue;
        };
        let (words, _) = page.as_chunks::<8>();
        wrong.push(Mismatch {
            iova,
            expected: write,
            found: u64::from_le_bytes(words[0]),
            first_difference,
        });
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::{Generator, PAGE_SIZE, check_window};
    use crate::memory::{Flat, Memory};

    const GENERATOR: Generator = Generator {
        base: 0x20_0000,
        pages: 33,
        seed: 99,
        rate: 0,
        limit: 0,
    };

    fn written(positions: &[u64]) -> Flat {
        let memory = Flat::new(GENERATOR.base, GENERATOR.size());
        for (lane, position) in (0..).zip(positions) {
            for number in 0..*position {
                let write = GENERATOR
                    .write(lane, positions.len() as u64, number)
                    .expect("the lane has pages");
                memory
                    .write(GENERATOR.base + write.page * PAGE_SIZE, &write.content())
                    .expect("a write");
            }
        }
        memory
    }

    #[test]
    fn a_window_as_it_must_be_passes() {
        let positions = [100, 3, 64];
        let memory = written(&positions);
        assert_eq!(
            check_window(&memory, &GENERATOR, &positions).expect("a check"),
            []
        );
    }

    #[test]
    fn one_lost_byte_is_found() {
        let positions = [100, 3, 64];
        let memory = written(&positions);
        let victim = GENERATOR.write(0, 3, 99).expect("the lane has pages");
        let iova = GENERATOR.base + victim.page * PAGE_SIZE;
        let last = victim.content()[4095];
        memory.write(iova + 4095, &[!last]).expect("a write");
        let wrong = check_window(&memory, &GENERATOR, &positions).expect("a check");
        assert_eq!(wrong.len(), 1);
        assert_eq!((wrong[0].iova, wrong[0].first_difference), (iova, 4095));
    }

    #[test]
    fn one_lost_write_is_found() {
        let memory = written(&[100, 3, 64]);
        let wrong = check_window(&memory, &GENERATOR, &[101, 3, 64]).expect("a check");
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].expected.number, 100);
    }
}
