//! The generator's sequence, from the register map's definition.

use serde::{Deserialize, Serialize};

use crate::memory::PAGE_SIZE;
use crate::random::mix;

/// What successive words and seeds differ by.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words of a page.
const WORDS: u64 = PAGE_SIZE / 8;

/// What a generator was told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// IOVA of the window.
    pub base: u64,
    /// Pages of the window.
    pub pages: u64,
    /// Seed.
    pub seed: u64,
    /// Page writes per second over all lanes; 0 is flat out.
    pub rate: u64,
    /// Page writes per lane; 0 is no limit.
    pub limit: u64,
}

/// One write of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWrite {
    /// Number of the write, from 0.
    pub number: u64,
    /// The page, counted from the start of the window.
    pub page: u64,
    /// What the words of the page derive from.
    value: u64,
}

impl LaneWrite {
    /// What the page holds once the write is complete.
    pub fn content(&self) -> [u8; PAGE_SIZE as usize] {
        let mut page = [0; PAGE_SIZE as usize];
        let (words, _) = page.as_chunks_mut::<8>();
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(index as u64).to_le_bytes();
        }
        page
    }

    /// Word `index` of the page.
    pub fn word(&self, index: u64) -> u64 {
        debug_assert!(index < WORDS);
        match index {
            0 => self.number,
            _ => self.value.wrapping_add(STEP.wrapping_mul(index)),
        }
    }
}

impl Generator {
    /// Bytes of the window.
    pub fn size(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// Pages of lane `lane` of `lanes`.
    pub fn pages_of(&self, lane: u64, lanes: u64) -> u64 {
        self.pages.saturating_sub(lane).div_ceil(lanes)
    }

    /// Write `number` of lane `lane` of `lanes`, or `None` when the lane has no pages.
    pub fn write(&self, lane: u64, lanes: u64, number: u64) -> Option<LaneWrite> {
        let pages = self.pages_of(lane, lanes);
        if pages == 0 {
            return None;
        }
        let value = mix(self
            .lane_seed(lane)
            .wrapping_add(STEP.wrapping_mul(number.wrapping_add(1))));
        Some(LaneWrite {
            number,
            page: lane + lanes * (value % pages),
            value,
        })
    }

    fn lane_seed(&self, lane: u64) -> u64 {
        mix(self.seed.wrapping_add(STEP.wrapping_mul(lane + 1)))
    }

    /// For each page of the window the last of the writes done when the lanes stand at `positions`; `None` for a page that
    /// was not written.
    ///
    /// It looks back from the positions and stops when every page of a lane is found, so that the time does not grow with
    /// how long the generator ran.
    pub fn last_writes(&self, positions: &[u64]) -> Vec<Option<LaneWrite>> {
        let lanes = positions.len() as u64;
        let mut last = vec![None; self.pages as usize];
        for (lane, position) in (0..lanes).zip(positions) {
            let mut missing = self.pages_of(lane, lanes);
            for number in (0..*position).rev() {
                if missing == 0 {
                    break;
                }
                let Some(write) = self.write(lane, lanes, number) else {
                    break;
                };
                let slot = &mut last[write.page as usize];
                if slot.is_none() {
                    *slot = Some(write);
                    missing -= 1;
                }
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::Generator;

    const GENERATOR: Generator = Generator {
        base: 0x10_0000,
        pages: 10,
        seed: 7,
        rate: 0,
        limit: 0,
    };

    #[test]
    fn lanes_share_no_page() {
        for lane in 0..4 {
            for number in 0..100 {
                let write = GENERATOR.write(lane, 4, number).expect("the lane has pages");
                assert_eq!(write.page % 4, lane);
                assert!(write.page < 10);
            }
        }
    }

    #[test]
    fn lanes_divide_the_window() {
        let pages: u64 = (0..4).map(|lane| GENERATOR.pages_of(lane, 4)).sum();
        assert_eq!(pages, 10);
        assert!(
            Generator {
                pages: 2,
                ..GENERATOR
            }
            .write(3, 4, 0)
            .is_none()
        );
    }

    #[test]
    fn looking_back_finds_what_going_forward_leaves() {
        let positions = [5, 0, 17, 1000];
        let mut forward = vec![None; 10];
        for (lane, position) in (0..4).zip(positions) {
            for number in 0..position {
                let write = GENERATOR.write(lane, 4, number).expect("the lane has pages");
                forward[write.page as usize] = Some(write);
            }
        }
        assert_eq!(GENERATOR.last_writes(&positions), forward);
    }

    #[test]
    fn the_first_word_of_a_page_is_the_write_s_number() {
        let write = GENERATOR.write(1, 4, 41).expect("the lane has pages");
        let content = write.content();
        assert_eq!(content[..8], 41_u64.to_le_bytes());
        assert_eq!(content[8..16], write.word(1).to_le_bytes());
    }
}
