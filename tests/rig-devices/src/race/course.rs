//! [`Course`]: what a race writes, in which order.

use std::ops::Range;

use anyhow::Result;

use super::Goal;
use crate::engine::Limits;
use crate::memory::Memory;
use crate::pages::PAGE;

/// Pages that are written in turn, before others are.
const GROUP: u64 = 64;
/// Bytes that are written, where a device can write fewer: pages are full sooner then.
const WORD: u64 = 8;
/// How many times as many writes as the goal says there is room for.
const ROOM: u64 = 2;

/// Writes of `unit` bytes, each to a place of its own: of a group of pages every page in turn, each time a further unit, until they are
/// full, and then of the next group.
pub struct Course {
    group: u64,
    groups: u64,
    unit: u64,
    depth: u64,
}

impl Course {
    /// In groups of pages, words or what the device writes at a time.
    pub fn in_groups(goal: Goal, limits: &Limits) -> Self {
        let unit = limits.unit.max(WORD);
        Self {
            group: GROUP,
            groups: (ROOM * goal.writes).div_ceil(GROUP * (PAGE / unit)),
            unit,
            depth: limits.depth as u64,
        }
    }

    /// Of as few pages as there is room on, and at least so many, which are all written in turn.
    pub fn in_turn(goal: Goal, limits: &Limits, least: u64) -> Self {
        let pages = (ROOM * goal.writes).div_ceil(PAGE / limits.unit);
        Self {
            group: pages.max(least),
            groups: 1,
            unit: limits.unit,
            depth: limits.depth as u64,
        }
    }

    /// How many pages are written.
    pub fn pages(&self) -> u64 {
        self.group * self.groups
    }

    /// How many writes there can be.
    pub(super) fn room(&self) -> u64 {
        self.pages() * (PAGE / self.unit)
    }

    /// A write to the page after the last.
    pub(super) fn beyond(&self) -> Range<u64> {
        let start = self.pages() * PAGE;
        start..start + self.unit
    }

    /// The writes after so many, as many as are made at a time.
    pub(super) fn batch(&self, writes: u64) -> Vec<Range<u64>> {
        let end = (writes + self.depth).min(self.room());
        (writes..end).map(|number| self.target(number)).collect()
    }

    fn target(&self, number: u64) -> Range<u64> {
        let (group, number) = (number / self.per_group(), number % self.per_group());
        let (page, turn) = (group * self.group + number % self.group, number / self.group);
        let start = page * PAGE + turn * self.unit;
        start..start + self.unit
    }

    fn per_group(&self) -> u64 {
        self.group * (PAGE / self.unit)
    }

    /// The pages that are written after so many writes, and those of the group before.
    pub(super) fn recent(&self, writes: u64) -> Range<u64> {
        let group = (writes / self.per_group()).min(self.groups - 1);
        group.saturating_sub(1) * self.group..(group + 1) * self.group
    }

    /// How many of the first `writes` memory has, none of whose bytes is zero.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn arrived(&self, memory: &dyn Memory, writes: u64) -> Result<u64> {
        let mut arrived = 0;
        let mut bytes = vec![0; self.unit as usize];
        for number in 0..writes {
            memory.read(self.target(number).start, &mut bytes)?;
            arrived += u64::from(bytes.iter().all(|byte| *byte != 0));
        }
        Ok(arrived)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Course, Goal};
    use crate::engine::Kind;
    use crate::pages::PAGE;

    #[test]
    fn every_place_is_written_once_and_is_in_a_recent_page() {
        let goal = Goal {
            writes: 1000,
            reads: 1,
        };
        for course in [
            Course::in_groups(goal, &Kind::Nvme.limits()),
            Course::in_turn(goal, &Kind::Nvme.limits(), 10),
        ] {
            let (mut places, mut writes) = (BTreeSet::new(), 0);
            loop {
                let batch = course.batch(writes);
                if batch.is_empty() {
                    break;
                }
                writes += batch.len() as u64;
                for range in batch {
                    assert!(range.end <= course.pages() * PAGE);
                    assert!(course.recent(writes).contains(&(range.start / PAGE)));
                    assert!(places.insert(range.start));
                }
            }
            assert!(writes >= 2 * goal.writes && writes == course.pages() * 8);
        }
    }
}
