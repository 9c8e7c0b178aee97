//! Changes counted by address and time, in bounded memory.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::vmm::PAGE_SIZE;

/// Stretches of the memory that are told apart, at most.
const MAX_ROWS: u64 = 128;

/// Stretches of time that are told apart, at most; then two become one.
const MAX_COLUMNS: usize = 240;

/// Pages seen to change, by address and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeatMap {
    /// Bytes of memory that was looked at, from 0.
    pub memory_bytes: u64,
    /// Bytes of memory that a row stands for.
    pub row_bytes: u64,
    /// Seconds at which the first column begins.
    pub began: f64,
    /// Stretches of time, each from the end of the one before.
    pub columns: Vec<HeatColumn>,
}

/// What changed in a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeatColumn {
    /// Seconds at which it ends: memory was looked at then.
    pub ended: f64,
    /// Pages that had changed, row by row from address 0.
    pub pages: Vec<u32>,
}

impl HeatMap {
    /// How often a page was seen to have changed, all pages and all times.
    pub fn changes(&self) -> u64 {
        self.cells().map(u64::from).sum()
    }

    /// The most pages in one cell.
    pub fn hottest(&self) -> u32 {
        self.cells().max().unwrap_or(0)
    }

    /// The map with all its times later by so many seconds.
    #[must_use]
    pub fn later(mut self, seconds: f64) -> Self {
        self.began += seconds;
        for column in &mut self.columns {
            column.ended += seconds;
        }
        self
    }

    fn cells(&self) -> impl Iterator<Item = u32> {
        self.columns
            .iter()
            .flat_map(|column| column.pages.iter().copied())
    }
}

/// Counts changes, look by look.
#[derive(Debug)]
pub struct HeatLog {
    memory_bytes: u64,
    row_bytes: u64,
    columns: Vec<HeatColumn>,
    /// What has changed since the end of the last column.
    pages: Vec<u32>,
    looks: u32,
    looks_per_column: u32,
    looked: Duration,
}

impl HeatLog {
    /// A log of `memory_bytes` of memory.
    pub fn new(memory_bytes: u64) -> Self {
        let pages = memory_bytes.div_ceil(PAGE_SIZE).max(1);
        let row_bytes = pages.div_ceil(MAX_ROWS) * PAGE_SIZE;
        Self {
            memory_bytes,
            row_bytes,
            columns: Vec::new(),
            pages: vec![0; memory_bytes.div_ceil(row_bytes) as usize],
            looks: 0,
            looks_per_column: 1,
            looked: Duration::ZERO,
        }
    }

    /// A look sees that the page at `offset` has changed. One outside of the memory is not counted.
    pub fn changed(&mut self, offset: u64) {
        if let Some(pages) = self.pages.get_mut((offset / self.row_bytes) as usize) {
            *pages = pages.saturating_add(1);
        }
    }

    /// A look is over, so long after the beginning.
    pub fn looked(&mut self, at: Duration) {
        self.looked = at;
        self.looks += 1;
        if self.looks == self.looks_per_column {
            self.end_column();
        }
        if self.columns.len() > MAX_COLUMNS {
            self.looks_per_column *= 2;
            self.columns = self.columns.chunks(2).map(merged).collect();
        }
    }

    /// The map of what was counted, from 0 on.
    pub fn finish(mut self) -> HeatMap {
        if self.looks > 0 {
            self.end_column();
        }
        HeatMap {
            memory_bytes: self.memory_bytes,
            row_bytes: self.row_bytes,
            began: 0.0,
            columns: self.columns,
        }
    }

    fn end_column(&mut self) {
        let none = vec![0; self.pages.len()];
        self.columns.push(HeatColumn {
            ended: self.looked.as_secs_f64(),
            pages: std::mem::replace(&mut self.pages, none),
        });
        self.looks = 0;
    }
}

/// One column of one or two.
fn merged(columns: &[HeatColumn]) -> HeatColumn {
    let mut sum = columns[0].clone();
    for column in &columns[1..] {
        sum.ended = column.ended;
        for (total, pages) in sum.pages.iter_mut().zip(&column.pages) {
            *total = total.saturating_add(*pages);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{HeatLog, MAX_COLUMNS, MAX_ROWS};
    use crate::vmm::PAGE_SIZE;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_change_is_counted_where_and_when_it_was_seen() {
        let mut log = HeatLog::new(1 << 30);
        let row_bytes = (1 << 30) / MAX_ROWS;
        log.looked(SECOND);
        log.changed(3 * row_bytes + PAGE_SIZE);
        log.changed(3 * row_bytes);
        log.looked(SECOND * 3);
        let map = log.finish().later(10.0);
        let ends: Vec<f64> = map.columns.iter().map(|column| column.ended).collect();
        assert_eq!((map.began, ends), (10.0, vec![11.0, 13.0]));
        assert_eq!(map.columns[0].pages.iter().sum::<u32>(), 0);
        assert_eq!(map.columns[1].pages[3], 2);
        assert_eq!((map.changes(), map.hottest()), (2, 2));
    }

    #[test]
    fn a_page_outside_of_the_memory_is_not_counted() {
        let mut log = HeatLog::new(3 * PAGE_SIZE);
        log.changed(3 * PAGE_SIZE);
        log.changed(u64::MAX);
        log.looked(SECOND);
        assert_eq!(log.finish().changes(), 0);
    }

    proptest! {
        #[test]
        fn no_change_gets_lost_however_many_looks_there_are(
            memory in 1_u64..1 << 40,
            looks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..2000),
        ) {
            let mut log = HeatLog::new(memory);
            let mut changes = 0;
            for (number, pages) in (1_u32..).zip(&looks) {
                for page in pages {
                    log.changed(page.index(memory as usize) as u64);
                    changes += 1;
                }
                log.looked(SECOND * number);
            }
            let map = log.finish();
            prop_assert_eq!(map.changes(), changes);
            prop_assert!(map.columns.len() <= MAX_COLUMNS + 1);
            prop_assert!(map.columns.iter().all(|column| column.pages.len() as u64 <= MAX_ROWS));
            prop_assert!(map.columns.iter().all(|column| column.pages.len() as u64 * map.row_bytes >= memory));
            prop_assert!(map.columns.is_sorted_by(|a, b| a.ended < b.ended));
            let last = map.columns.last().map_or(0.0, |column| column.ended);
            #[expect(clippy::cast_precision_loss)] // Some thousands.
            let looked = looks.len() as f64;
            prop_assert!((last - looked).abs() < 1e-9, "the last look ends the map");
        }
    }
}
