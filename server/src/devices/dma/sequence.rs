//! The generator's sequence: which page write number `p` of a lane goes to, and what it writes. Pure arithmetic, so that a
//! test, or a client, can replay it.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::spec;

/// The step between the inputs of [`mix`]: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const WORDS: usize = spec::GEN_PAGE_SIZE as usize / 8;

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One lane's sequence of page writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    seed: u64,
    lane: u64,
    lanes: u64,
    own_pages: u64,
}

/// One write of a [`Sequence`].
#[derive(Debug, Clone, Copy)]
pub(super) struct PageWrite {
    /// The page's number in the window.
    pub(super) page: u64,
    position: u64,
    base: u64,
}

/// Pages that `lane` of `lanes` owns in a window of `pages`.
pub(super) fn own_pages(lane: u64, lanes: u64, pages: u64) -> u64 {
    pages.saturating_sub(lane).div_ceil(lanes)
}

impl Sequence {
    /// The sequence of `lane` of `lanes` in a window of `pages`; `None` when the lane has no page.
    pub(super) fn new(seed: u64, lane: u64, lanes: u64, pages: u64) -> Option<Self> {
        let own_pages = own_pages(lane, lanes, pages);
        (own_pages > 0).then(|| Self {
            seed: mix(seed.wrapping_add(STEP.wrapping_mul(lane + 1))),
            lane,
            lanes,
            own_pages,
        })
    }

    /// Write number `position`.
    pub(super) fn write(&self, position: u64) -> PageWrite {
        let base = mix(self
            .seed
            .wrapping_add(STEP.wrapping_mul(position.wrapping_add(1))));
        PageWrite {
            page: self.lane + self.lanes * (base % self.own_pages),
            position,
            base,
        }
    }
}

impl PageWrite {
    /// Fills the page.
    pub(super) fn fill(&self, page: &mut Page) {
        let mut word = self.base;
        for slot in &mut page.0 {
            slot.set(word);
            word = word.wrapping_add(STEP);
        }
        page.0[0].set(self.position);
    }
}

/// A page's bytes.
#[derive(Debug, Clone)]
pub(super) struct Page([U64; WORDS]);

impl Page {
    pub(super) fn zeroed() -> Self {
        Self([U64::ZERO; WORDS])
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_share_out_every_page_of_the_window() {
        for (lanes, pages) in [(1, 1), (3, 7), (4, 4), (64, 10), (64, 1000), (5, u64::MAX)] {
            let sum: u128 = (0..lanes)
                .map(|lane| u128::from(own_pages(lane, lanes, pages)))
                .sum();
            assert_eq!(sum, u128::from(pages));
        }
    }

    #[test]
    fn every_write_stays_on_its_lanes_pages() {
        for lane in 0..5 {
            let sequence = Sequence::new(99, lane, 5, 23).unwrap();
            for position in 0..1000 {
                let page = sequence.write(position).page;
                assert!(page < 23 && page % 5 == lane);
            }
        }
    }

    #[test]
    fn a_lane_beyond_the_window_has_no_sequence() {
        assert!(Sequence::new(0, 3, 5, 3).is_none());
    }
}
