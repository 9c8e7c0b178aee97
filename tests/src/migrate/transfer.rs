//! Pages on their way from one guest memory to another.

use std::ops::Range;
use std::sync::Arc;

use super::MigrateError;
use crate::oracle::{Copied, Oracle};
use crate::vmm::{GuestMemory, PAGE_SIZE, PageSet, Region};

/// Bytes that a real migration sends before each page.
pub const PAGE_HEADER: u64 = 8;

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Pages.
    pub pages: u64,
    /// Pages of these that were zero: a header alone.
    pub zero_pages: u64,
    /// Pages of these that the destination had already.
    pub redundant_pages: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}

impl Transfer {
    /// Copies `pages` from `source` to `dest`, and tells the oracle.
    ///
    /// Holes of the source are sent as zero pages without being touched, so that a large guest costs only what it uses.
    ///
    /// # Errors
    ///
    /// The memories are not laid out alike.
    pub fn copy(
        source: &GuestMemory,
        dest: &GuestMemory,
        pages: &PageSet,
        oracle: &mut Oracle,
    ) -> Result<Self, MigrateError> {
        let mut transfer = Self::default();
        let mut regions = Regions::new(source);
        let mut content = [0; PAGE_SIZE as usize];
        for iova in pages.iter() {
            let Some((from, hole)) = regions.find(iova)? else {
                continue;
            };
            let to = dest.find(iova, PAGE_SIZE)?;
            transfer.pages += 1;
            transfer.bytes += PAGE_HEADER;
            if hole {
                transfer.zero_pages += 1;
                oracle.copied_zero(iova);
                continue;
            }
            from.read(iova, &mut content);
            let copied = oracle.copied(iova, &content);
            to.write(iova, &content);
            transfer.account(&content, copied);
        }
        Ok(transfer)
    }

    fn account(&mut self, content: &[u8], copied: Copied) {
        if copied == Copied::Redundant {
            self.redundant_pages += 1;
        }
        if content.iter().all(|byte| *byte == 0) {
            self.zero_pages += 1;
        } else {
            self.bytes += PAGE_SIZE;
        }
    }
}

/// Finds the region of ascending pages, and whether a page is a hole of its file.
struct Regions {
    regions: std::iter::Peekable<std::vec::IntoIter<Arc<Region>>>,
    extents: Option<Extents>,
}

struct Extents {
    region: u64,
    ranges: std::iter::Peekable<std::vec::IntoIter<Range<u64>>>,
}

impl Regions {
    fn new(memory: &GuestMemory) -> Self {
        Self {
            regions: memory.regions().into_iter().peekable(),
            extents: None,
        }
    }

    fn find(&mut self, iova: u64) -> Result<Option<(Arc<Region>, bool)>, MigrateError> {
        while self.regions.next_if(|region| region.end() <= iova).is_some() {}
        let Some(region) = self
            .regions
            .peek()
            .filter(|region| region.iova() <= iova)
            .cloned()
        else {
            return Ok(None);
        };
        let extents = match self.extents.take() {
            Some(extents) if extents.region == region.iova() => extents,
            _ => Extents {
                region: region.iova(),
                ranges: region.data_extents()?.into_iter().peekable(),
            },
        };
        let extents = self.extents.insert(extents);
        while extents.ranges.next_if(|range| range.end <= iova).is_some() {}
        let hole = extents.ranges.peek().is_none_or(|range| range.start > iova);
        Ok(Some((region, hole)))
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_HEADER, Transfer};
    use crate::oracle::{Depth, Oracle};
    use crate::vmm::{Backing, GuestMemory, PAGE_SIZE, PageSet};

    #[test]
    fn a_large_empty_guest_costs_headers_only() {
        let source = GuestMemory::pc(5 << 30, Backing::Sealed).expect("memory");
        source.write(4 << 30, &[7; 4096]).expect("a write");
        source.write(1 << 20, &[8; 10]).expect("a write");
        let dest = source.same_layout().expect("memory");
        let mut oracle = Oracle::new(&source, Depth::Full);
        let all = PageSet::all(&source);
        let transfer = Transfer::copy(&source, &dest, &all, &mut oracle).expect("a copy");
        assert_eq!(transfer.pages, all.count());
        assert_eq!(transfer.zero_pages, transfer.pages - 2);
        assert_eq!(transfer.bytes, transfer.pages * PAGE_HEADER + 2 * PAGE_SIZE);
        assert!(oracle.verdict(&source, &dest, 1).expect("a verdict").passed());
    }
}
