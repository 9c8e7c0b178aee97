//! Decides whether every write of a device was reported and every page arrived.
//!
//! The promise checked: *no page a device wrote is ever lost*. The migration tells the oracle which pages each report
//! named and what was copied; the oracle reads guest memory itself.
//!
//! * A page whose content differs from what was copied last, and that this pass's report did not name, is a **suspect**: a
//!   device wrote it after the bit was cleared. That is no fault yet, since the device may have written after the report;
//!   but its mark must then be in a later report.
//! * After the devices have stopped and the last report is copied nothing writes any more. A suspect that no later report
//!   named is **never reported**; a page that differs between source and destination is **lost**. Both are failures.
//!
//! There are no false positives: content can only differ from what was copied if a write came after the copy, hence after the
//! clearing of the bit, hence its mark is still to be reported. There are no false negatives at the end, since the contents
//! themselves are compared and not their hashes. A write that leaves a page as it was is not seen, and harms nobody.
//!
//! The oracle does not know what a device *should* have written; that is [`crate::driver::check_window`]'s part.

mod hashes;
mod verdict;

use std::collections::BTreeMap;
use std::io;

pub use hashes::Copied;
use hashes::{PageHashes, hash};
pub use verdict::{Loss, LostPage, Verdict};

use crate::vmm::{GuestMemory, PAGE_SIZE, PageSet, Region};

/// How much the oracle looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Depth {
    /// Hashes every page in every pass, and compares all memory at the end.
    #[default]
    Full,
    /// Compares all memory at the end.
    End,
    /// Looks at nothing: for measurements.
    Off,
}

/// What was seen of the migration so far.
pub struct Oracle {
    depth: Depth,
    hashes: PageHashes,
    /// Pages that changed without a report, with the pass in which that was first seen.
    suspects: BTreeMap<u64, u32>,
    /// Suspects that a later report named.
    cleared: u64,
    lost: Vec<LostPage>,
}

impl Oracle {
    /// An oracle that has seen nothing copied of `memory` yet.
    pub fn new(memory: &GuestMemory, depth: Depth) -> Self {
        let mut hashes = PageHashes::default();
        for region in memory.regions() {
            hashes.add_region(&region);
        }
        Self {
            depth,
            hashes,
            suspects: BTreeMap::new(),
            cleared: 0,
            lost: Vec::new(),
        }
    }

    /// A region was plugged in.
    pub fn region_added(&mut self, region: &Region) {
        self.hashes.add_region(region);
    }

    /// A report named these pages.
    pub fn reported(&mut self, pages: &PageSet) {
        let before = self.suspects.len();
        self.suspects.retain(|page, _| !pages.contains(*page));
        self.cleared += (before - self.suspects.len()) as u64;
    }

    /// The page at `iova` was copied with this content.
    pub fn copied(&mut self, iova: u64, content: &[u8]) -> Copied {
        self.hashes.copied(iova, content)
    }

    /// The page at `iova` was a hole, and was told to the destination as a page of zeros.
    pub fn copied_zero(&mut self, iova: u64) {
        self.hashes.copied_zero(iova);
    }

    /// Looks at every page that the report of `pass` did not name.
    ///
    /// # Errors
    ///
    /// The holes of the memory cannot be found.
    pub fn inspect(&mut self, memory: &GuestMemory, pass: u32, reported: &PageSet) -> io::Result<()> {
        if self.depth != Depth::Full {
            return Ok(());
        }
        let mut content = [0; PAGE_SIZE as usize];
        for region in memory.regions() {
            for iova in data_pages(&region)? {
                if reported.contains(iova) {
                    continue;
                }
                region.read(iova, &mut content);
                if self.hashes.differs(iova, hash(&content)) {
                    self.suspects.entry(iova).or_insert(pass);
                }
            }
        }
        Ok(())
    }

    /// Closes the books on memory that is unplugged: the devices have let go of `source`, the report after that is copied.
    ///
    /// # Errors
    ///
    /// The holes of the memory cannot be found.
    pub fn region_removed(&mut self, source: &Region, dest: &Region, pass: u32) -> io::Result<()> {
        self.judge_region(source, dest, pass)?;
        self.hashes.remove_region(source);
        Ok(())
    }

    /// Judges: the devices have stopped, and the last report is copied.
    ///
    /// # Errors
    ///
    /// The holes of the memory cannot be found; or the layouts differ.
    pub fn verdict(mut self, source: &GuestMemory, dest: &GuestMemory, pass: u32) -> io::Result<Verdict> {
        for region in source.regions() {
            let other = dest
                .find(region.iova(), region.size())
                .map_err(io::Error::other)?;
            self.judge_region(&region, &other, pass)?;
        }
        self.lost.sort_by_key(|page| page.iova);
        Ok(Verdict {
            checked: self.depth != Depth::Off,
            cleared_suspects: self.cleared,
            lost: self.lost,
        })
    }

    fn judge_region(&mut self, source: &Region, dest: &Region, pass: u32) -> io::Result<()> {
        if self.depth != Depth::Off {
            for (iova, byte) in differences(source, dest)? {
                let pass = self.suspects.remove(&iova).unwrap_or(pass);
                self.lost.push(LostPage::new(iova, pass, Loss::Differs { byte }));
            }
        }
        let mut unreported = self.suspects.split_off(&source.iova());
        let mut beyond = unreported.split_off(&source.end());
        self.suspects.append(&mut beyond);
        let never = unreported
            .into_iter()
            .map(|(iova, pass)| LostPage::new(iova, pass, Loss::NeverReported));
        self.lost.extend(never);
        Ok(())
    }
}

/// The pages of a region that are not holes.
fn data_pages(region: &Region) -> io::Result<impl Iterator<Item = u64>> {
    let extents = region.data_extents()?;
    Ok(extents
        .into_iter()
        .flat_map(|extent| (extent.start..extent.end).step_by(PAGE_SIZE as usize)))
}

/// The pages that differ, with the first byte that does. A page that is a hole on both sides is not touched.
fn differences(source: &Region, dest: &Region) -> io::Result<Vec<(u64, usize)>> {
    let mut pages: Vec<u64> = data_pages(source)?.chain(data_pages(dest)?).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut left = [0; PAGE_SIZE as usize];
    let mut right = [0; PAGE_SIZE as usize];
    let mut different = Vec::new();
    for iova in pages {
        source.read(iova, &mut left);
        dest.read(iova, &mut right);
        if left != right {
            let byte = (0..left.len())
                .find(|index| left[*index] != right[*index])
                .unwrap_or(0);
            different.push((iova, byte));
        }
    }
    Ok(different)
}

#[cfg(test)]
mod tests;
