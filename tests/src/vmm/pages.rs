//! A set of guest pages.

use super::memory::{GuestMemory, PAGE_SIZE};

/// Pages of a guest memory, by IOVA. Pages outside of the memory it was made for are never in it.
#[derive(Clone, Debug, Default)]
pub struct PageSet {
    regions: Vec<RegionPages>,
}

#[derive(Clone, Debug)]
struct RegionPages {
    iova: u64,
    pages: u64,
    words: Vec<u64>,
}

impl RegionPages {
    fn end(&self) -> u64 {
        self.iova + self.pages * PAGE_SIZE
    }
}

impl PageSet {
    /// An empty set of pages of `memory` as it is laid out now.
    pub fn of(memory: &GuestMemory) -> Self {
        let regions = memory.regions().into_iter().map(|region| {
            let pages = region.size() / PAGE_SIZE;
            RegionPages {
                iova: region.iova(),
                pages,
                words: vec![0; pages.div_ceil(64) as usize],
            }
        });
        Self {
            regions: regions.collect(),
        }
    }

    /// Every page of `memory`.
    pub fn all(memory: &GuestMemory) -> Self {
        let mut all = Self::of(memory);
        for region in memory.regions() {
            all.insert_range(region.iova(), region.size());
        }
        all
    }

    /// Adds the pages that the range touches.
    pub fn insert_range(&mut self, iova: u64, length: u64) {
        let range_end = iova.saturating_add(length);
        for region in &mut self.regions {
            let start = iova.max(region.iova);
            let end = range_end.min(region.end());
            if start >= end {
                continue;
            }
            let first = (start - region.iova) / PAGE_SIZE;
            let last = (end - 1 - region.iova) / PAGE_SIZE;
            for page in first..=last {
                region.words[(page / 64) as usize] |= 1 << (page % 64);
            }
        }
    }

    /// Whether the page that holds `iova` is in the set.
    pub fn contains(&self, iova: u64) -> bool {
        let Some(region) = self
            .regions
            .iter()
            .find(|region| iova >= region.iova && iova < region.end())
        else {
            return false;
        };
        let page = (iova - region.iova) / PAGE_SIZE;
        region.words[(page / 64) as usize] & (1 << (page % 64)) != 0
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        let words = self.regions.iter().flat_map(|region| &region.words);
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.regions
            .iter()
            .all(|region| region.words.iter().all(|word| *word == 0))
    }

    /// The pages, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.regions.iter().flat_map(|region| {
            let words = region.words.iter().enumerate().filter(|(_, word)| **word != 0);
            words.flat_map(move |(index, word)| {
                let base = region.iova + index as u64 * 64 * PAGE_SIZE;
                (0..64)
                    .filter(move |bit| word & (1 << bit) != 0)
                    .map(move |bit| base + bit * PAGE_SIZE)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PageSet;
    use crate::vmm::{Backing, GuestMemory};

    #[test]
    fn a_range_over_a_hole_names_only_memory() {
        let memory = GuestMemory::pc(8 << 20, Backing::Sealed).expect("memory");
        let mut pages = PageSet::of(&memory);
        pages.insert_range(0x9_f001, 0x10_0000 - 0x9_f001 + 1);
        assert_eq!(pages.iter().collect::<Vec<_>>(), [0x9_f000, 0x10_0000]);
        assert!(pages.contains(0x10_0fff));
        assert!(!pages.contains(0xa_0000));
        assert_eq!(pages.count(), 2);
    }

    #[test]
    fn all_pages_are_as_many_as_memory_has() {
        let memory = GuestMemory::pc(8 << 20, Backing::Sealed).expect("memory");
        assert_eq!(PageSet::all(&memory).count() * 4096, memory.size());
    }
}
