//! [`Mappings`]: what is mapped in an address space, and which parts of it have dirty bits to be read.

use std::collections::BTreeMap;

use super::kernel::{Access, Hold, Leaves};
use crate::{Iova, IovaRange};

/// The mappings of an address space, which do not overlap.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    by_start: BTreeMap<Iova, Mapping>,
    /// Taken by mappings that the kernel is making. They have no bits to be read yet.
    in_the_making: Vec<IovaRange>,
}

#[derive(Debug)]
struct Mapping {
    last: Iova,
    access: Access,
    _hold: Hold,
}

impl Mappings {
    /// Takes `range` for a mapping to be made. Returns whether it is free.
    pub(super) fn reserve(&mut self, range: IovaRange) -> bool {
        let is_free = !self.overlap(&range);
        if is_free {
            self.in_the_making.push(range);
        }
        is_free
    }

    /// Gives back what was [reserved](Self::reserve).
    pub(super) fn release(&mut self, range: &IovaRange) {
        self.in_the_making.retain(|reserved| reserved != range);
    }

    pub(super) fn insert(&mut self, range: IovaRange, access: Access, hold: Hold) {
        let mapping = Mapping {
            last: range.last(),
            access,
            _hold: hold,
        };
        self.by_start.insert(range.start(), mapping);
    }

    pub(super) fn remove(&mut self, range: &IovaRange) {
        self.by_start.remove(&range.start());
    }

    /// What devices may do with the mapping that is exactly `range`.
    pub(super) fn access(&self, range: &IovaRange) -> Option<Access> {
        let mapping = self.by_start.get(&range.start())?;
        (mapping.last == range.last()).then_some(mapping.access)
    }

    /// Whether any of `range` is mapped or about to be.
    pub(super) fn overlap(&self, range: &IovaRange) -> bool {
        let is_in_the_making = self.in_the_making.iter().any(|reserved| reserved.overlaps(range));
        is_in_the_making || self.overlapping(range).next().is_some()
    }

    /// The ranges that have to be read for the dirty bits of `range`: all of it that devices can write, without holes,
    /// and no large page in part. `page` is the size of a small one.
    pub(super) fn to_read(&self, range: &IovaRange, leaves: Leaves, page: u64) -> Vec<IovaRange> {
        let writable = self
            .overlapping(range)
            .filter(|(_, mapping)| mapping.access == Access::Write)
            .map(|(start, mapping)| IovaRange::of(start.get(), mapping.last.get()));
        match leaves {
            Leaves::Large => writable.collect(),
            Leaves::Small => {
                let pages = IovaRange::of(range.start().get() & !(page - 1), range.last().get() | (page - 1));
                joined(writable.filter_map(|mapping| mapping.intersection(&pages)))
            }
        }
    }

    /// The mappings that have a byte in `range`, ascending.
    fn overlapping(&self, range: &IovaRange) -> impl Iterator<Item = (Iova, &Mapping)> {
        // Of those that start before the range only the last one can reach into it.
        let before = self.by_start.range(..range.start()).next_back();
        let from = self.by_start.range(range.start()..=range.last());
        before
            .filter(|(_, mapping)| mapping.last >= range.start())
            .into_iter()
            .chain(from)
            .map(|(start, mapping)| (*start, mapping))
    }
}

/// Ascending ranges, with those that follow one another at once made into one.
fn joined(ranges: impl Iterator<Item = IovaRange>) -> Vec<IovaRange> {
    let mut all: Vec<IovaRange> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(left) if left.last().checked_add(1) == Some(range.start()) => {
                *left = IovaRange::of(left.start().get(), range.last().get());
            }
            _ => all.push(range),
        }
    }
    all
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn pages(first: u64, count: u64) -> IovaRange {
        IovaRange::of(first * PAGE, (first + count) * PAGE - 1)
    }

    fn mappings() -> Mappings {
        let mut mappings = Mappings::default();
        for (range, access) in [
            (pages(0, 4), Access::Write),
            (pages(4, 4), Access::Write),
            (pages(8, 2), Access::Read),
            (pages(20, 4), Access::Write),
        ] {
            mappings.insert(range, access, Hold::Nothing);
        }
        mappings
    }

    #[test]
    fn what_is_read_has_no_holes_and_nothing_that_devices_cannot_write() {
        let to_read = mappings().to_read(&pages(2, 20), Leaves::Small, PAGE);
        assert_eq!(to_read, [pages(2, 6), pages(20, 2)]);
    }

    #[test]
    fn of_large_pages_whole_mappings_are_read() {
        let to_read = mappings().to_read(&pages(2, 19), Leaves::Large, PAGE);
        assert_eq!(to_read, [pages(0, 4), pages(4, 4), pages(20, 4)]);
    }

    #[test]
    fn of_small_pages_whole_ones_are_read() {
        let to_read = mappings().to_read(&IovaRange::of(PAGE + 5, 2 * PAGE), Leaves::Small, PAGE);
        assert_eq!(to_read, [pages(1, 2)]);
    }

    #[test]
    fn what_is_about_to_be_mapped_is_in_the_way_and_has_no_bits() {
        let mut mappings = mappings();
        assert!(mappings.reserve(pages(10, 5)));
        assert!(!mappings.reserve(pages(12, 8)) && !mappings.reserve(pages(0, 1)));
        assert!(mappings.to_read(&pages(10, 5), Leaves::Small, PAGE).is_empty());
        mappings.release(&pages(10, 5));
        assert!(mappings.reserve(pages(12, 8)));
    }

    #[test]
    fn a_mapping_is_found_by_its_exact_range_only() {
        let mappings = mappings();
        assert_eq!(mappings.access(&pages(8, 2)), Some(Access::Read));
        assert_eq!(mappings.access(&pages(8, 1)), None);
        assert!(mappings.overlap(&pages(9, 5)) && !mappings.overlap(&pages(10, 10)));
    }
}
