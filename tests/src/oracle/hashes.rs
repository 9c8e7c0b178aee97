//! What was copied of each page, as a hash.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::vmm::{PAGE_SIZE, Region};

/// No content hashes to this: the page was not copied yet.
const NEVER: u64 = 0;

/// Whether a copy was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The destination did not have this content.
    Needed,
    /// The destination had it from an earlier copy.
    Redundant,
}

/// Hash of a page's content.
pub(super) fn hash(content: &[u8]) -> u64 {
    xxh3_64(content).max(NEVER + 1)
}

/// A hash for each page, region by region.
pub(super) struct PageHashes {
    regions: BTreeMap<u64, Vec<u64>>,
    zero: u64,
}

impl Default for PageHashes {
    fn default() -> Self {
        Self {
            regions: BTreeMap::new(),
            zero: hash(&[0; PAGE_SIZE as usize]),
        }
    }
}

impl PageHashes {
    pub(super) fn add_region(&mut self, region: &Region) {
        let pages = (region.size() / PAGE_SIZE) as usize;
        self.regions.insert(region.iova(), vec![NEVER; pages]);
    }

    pub(super) fn remove_region(&mut self, region: &Region) {
        self.regions.remove(&region.iova());
    }

    fn slot(&mut self, iova: u64) -> Option<&mut u64> {
        let (start, pages) = self.regions.range_mut(..=iova).next_back()?;
        pages.get_mut(((iova - start) / PAGE_SIZE) as usize)
    }

    pub(super) fn copied(&mut self, iova: u64, content: &[u8]) -> Copied {
        let new = hash(content);
        let Some(slot) = self.slot(iova) else {
            return Copied::Needed;
        };
        if std::mem::replace(slot, new) == new {
            return Copied::Redundant;
        }
        Copied::Needed
    }

    pub(super) fn copied_zero(&mut self, iova: u64) {
        let zero = self.zero;
        if let Some(slot) = self.slot(iova) {
            *slot = zero;
        }
    }

    /// Whether the page holds something else than what was copied; false for one that was not copied yet.
    pub(super) fn differs(&mut self, iova: u64, now: u64) -> bool {
        self.slot(iova)
            .is_some_and(|copied| *copied != NEVER && *copied != now)
    }
}
