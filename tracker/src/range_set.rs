//! [`RangeSet`]: a set of IOVAs, as sorted ranges that neither overlap nor touch.

use thiserror::Error;

use crate::{Iova, IovaRange, PageSize};

/// Two ranges of a list that must not overlap do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the ranges {0} and {1} overlap")]
pub struct OverlapError(pub IovaRange, pub IovaRange);

/// A set of IOVAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Sorted; between two neighbours lies at least one byte.
    ranges: Vec<IovaRange>,
}

impl RangeSet {
    /// The set of the bytes of `ranges`, which may come in any order.
    ///
    /// # Errors
    /// [`OverlapError`] if a byte lies in two of them.
    pub fn disjoint(ranges: &[IovaRange]) -> Result<Self, OverlapError> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable_by_key(IovaRange::start);
        match sorted.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
            Some(pair) => Err(OverlapError(pair[0], pair[1])),
            None => Ok(Self::merged(sorted)),
        }
    }

    /// The ranges, in ascending order.
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// Whether no byte is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: &IovaRange) -> bool {
        self.ranges[self.first_reaching(range.start())..]
            .first()
            .is_some_and(|r| r.contains(range))
    }

    /// The bytes of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = [self.ranges.as_slice(), other.ranges.as_slice()].concat();
        all.sort_unstable_by_key(IovaRange::start);
        Self::merged(all)
    }

    /// The bytes of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        for range in &self.ranges {
            ranges.extend(other.overlap_with(range));
        }
        Self { ranges }
    }

    /// The parts of the set that lie in `range`.
    pub fn overlap_with(&self, range: &IovaRange) -> impl Iterator<Item = IovaRange> {
        self.ranges[self.first_reaching(range.start())..]
            .iter()
            .map_while(|r| r.intersection(range))
    }

    /// The bytes of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        for range in &self.ranges {
            let mut rest = Some(*range);
            for hole in other.overlap_with(range) {
                let Some(part) = rest else { break };
                if part.start() < hole.start() {
                    ranges.push(IovaRange::of(part.start().get(), hole.start().get() - 1));
                }
                rest = hole
                    .last()
                    .checked_add(1)
                    .filter(|next| *next <= part.last())
                    .map(|next| IovaRange::of(next.get(), part.last().get()));
            }
            ranges.extend(rest);
        }
        Self { ranges }
    }

    /// A superset whose ranges are multiples of `page_size`.
    pub(crate) fn aligned(&self, page_size: PageSize) -> Self {
        let within = page_size.bytes() - 1;
        let outwards =
            |range: &IovaRange| IovaRange::of(range.start().get() & !within, range.last().get() | within);
        Self::merged(self.ranges.iter().map(outwards).collect())
    }

    /// A superset of at most `max` ranges, made by closing the smallest gaps; `max` is at least one.
    pub(crate) fn coarsened(&self, max: usize) -> Self {
        let excess = self.ranges.len().saturating_sub(max.max(1));
        if excess == 0 {
            return self.clone();
        }
        let gap = |i: usize| self.ranges[i].start().get() - self.ranges[i - 1].last().get();
        let mut by_gap: Vec<usize> = (1..self.ranges.len()).collect();
        by_gap.sort_by_key(|&i| gap(i));
        let mut closed = vec![false; self.ranges.len()];
        for &i in &by_gap[..excess] {
            closed[i] = true;
        }
        let mut ranges: Vec<IovaRange> = Vec::new();
        for (range, closes_gap) in self.ranges.iter().zip(closed) {
            match ranges.last_mut() {
                Some(left) if closes_gap => *left = spanning(left, range),
                _ => ranges.push(*range),
            }
        }
        Self { ranges }
    }

    /// The index of the first range that ends at or after `iova`.
    fn first_reaching(&self, iova: Iova) -> usize {
        self.ranges.partition_point(|r| r.last() < iova)
    }

    /// The set of sorted ranges that may overlap or touch.
    fn merged(sorted: Vec<IovaRange>) -> Self {
        let mut ranges: Vec<IovaRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match ranges.last_mut() {
                Some(left) if touches(left, &range) => *left = spanning(left, &range),
                _ => ranges.push(range),
            }
        }
        Self { ranges }
    }
}

impl From<IovaRange> for RangeSet {
    fn from(range: IovaRange) -> Self {
        Self { ranges: vec![range] }
    }
}

/// Whether `right`, which starts no earlier than `left`, overlaps it or follows it at once.
fn touches(left: &IovaRange, right: &IovaRange) -> bool {
    left.last()
        .checked_add(1)
        .is_none_or(|next| right.start() <= next)
}

/// The shortest range that contains both; `right` starts no earlier than `left`.
fn spanning(left: &IovaRange, right: &IovaRange) -> IovaRange {
    IovaRange::of(left.start().get(), left.last().max(right.last()).get())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u64 = 64;

    fn any_set() -> impl Strategy<Value = RangeSet> {
        proptest::collection::vec((0..END, 0..12_u64), 0..8).prop_map(|parts| {
            let ranges = parts
                .into_iter()
                .map(|(start, more)| IovaRange::of(start, (start + more).min(END - 1)));
            ranges.fold(RangeSet::default(), |set, range| set.union(&range.into()))
        })
    }

    fn has(set: &RangeSet, byte: u64) -> bool {
        set.ranges()
            .iter()
            .any(|range| range.contains_iova(Iova::new(byte)))
    }

    /// Sorted, and with a byte between neighbours.
    fn is_normal(set: &RangeSet) -> bool {
        set.ranges()
            .windows(2)
            .all(|pair| pair[0].last().get() + 1 < pair[1].start().get())
    }

    proptest! {
        #[test]
        fn set_operations_agree_byte_by_byte(a in any_set(), b in any_set(), max in 1..6_usize) {
            let (union, both, rest) = (a.union(&b), a.intersection(&b), a.difference(&b));
            let coarse = a.coarsened(max);
            let aligned = a.aligned(PageSize::new(8).unwrap());
            prop_assert!(coarse.ranges().len() <= max);
            for set in [&union, &both, &rest, &coarse, &aligned] {
                prop_assert!(is_normal(set));
            }
            for byte in 0..END {
                let (in_a, in_b) = (has(&a, byte), has(&b, byte));
                prop_assert_eq!(has(&union, byte), in_a || in_b);
                prop_assert_eq!(has(&both, byte), in_a && in_b);
                prop_assert_eq!(has(&rest, byte), in_a && !in_b);
                prop_assert!(!in_a || has(&coarse, byte), "a coarse set is a superset");
                prop_assert_eq!(has(&aligned, byte), (byte & !7..=byte | 7).any(|byte| has(&a, byte)));
            }
        }

        #[test]
        fn a_range_is_contained_when_every_byte_is(set in any_set(), start in 0..END, more in 0..20_u64) {
            let range = IovaRange::of(start, (start + more).min(END - 1));
            let expected = (range.start().get()..=range.last().get()).all(|byte| has(&set, byte));
            prop_assert_eq!(set.contains(&range), expected);
        }
    }

    #[test]
    fn ranges_that_overlap_are_no_set() {
        let (a, b) = (IovaRange::of(0, 10), IovaRange::of(10, 20));
        assert_eq!(RangeSet::disjoint(&[b, a]), Err(OverlapError(a, b)));
        let whole = RangeSet::disjoint(&[IovaRange::of(u64::MAX, u64::MAX), IovaRange::of(0, u64::MAX - 1)]);
        assert_eq!(whole.unwrap().ranges(), [IovaRange::of(0, u64::MAX)]);
    }
}
