//! [`Core`]: what an address space, its devices and its tracker share.
//!
//! One lock is held over every step that must not come between another one's: reading bits, unmapping, switching
//! tracking, attaching and detaching. What takes the kernel long goes without: mapping, which pins memory (until a new mapping is
//! in the list its bits are not read, and stay where they are), and filling and emptying a page table that has no device. Under
//! the lock an unmap takes as long as what it unmaps is large, and a read as what it reads.

use std::io;

use super::kernel::{Access, After, Iommufd, Leaves, ObjectId, Tracking};
use super::mappings::Mappings;
use super::page_tables::{PageTable, PageTables};
use crate::granules::{GRANULE, Granules};
use crate::sync::Mutex;
use crate::{IovaRange, RangeSet, ReportBitmap};

/// The most that is read at once where it can be divided: a bitmap of 2 MiB.
const MOST_AT_ONCE: u64 = 1 << 36;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) kernel: Box<dyn Iommufd>,
    pub(super) ioas: ObjectId,
    pub(super) leaves: Leaves,
    /// The size of a page of memory.
    pub(super) page: u64,
    pub(super) state: Mutex<State>,
    /// Something is not in the way of mappings any more.
    #[cfg(not(loom))]
    pub(super) freed: crate::sync::Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mappings: Mappings,
    pub(super) page_tables: PageTables,
    /// While the tracker runs.
    pub(super) log: Option<Log>,
    /// What is due and no page table knows any more: bits of mappings that are gone, and of large pages that were read in
    /// part. Of no meaning where nothing is started.
    pub(super) kept: Granules,
}

/// The tracker's, while it runs.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) started: RangeSet,
    /// Why pages may be missing from it.
    pub(super) lost: Option<String>,
}

/// The dirty bits of a mapping that goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastBits {
    /// What there was is kept.
    Kept,
    /// There may be more by the time it has gone.
    Unknown,
}

impl Core {
    /// Removes one mapping. What is due in it stays due.
    pub(super) fn unmap(&self, state: &mut State, range: &IovaRange, access: Access) -> io::Result<()> {
        let is_logged = access == Access::Write && state.log.is_some() && state.page_tables.can_track();
        let kept = is_logged && self.keep_last_bits(state, range) == LastBits::Kept;
        let result = self.kernel.unmap(self.ioas, *range);
        // Asked once nobody can write there any more: a device that has been made to run meanwhile runs still, since whoever leads
        // it elsewhere has to wait for this lock first.
        if is_logged && !(kept && state.page_tables.are_quiet()) {
            state.kept.mark(*range);
        }
        result?;
        state.mappings.remove(range);
        self.is_free_now();
        Ok(())
    }

    /// Tells those who wait for room.
    pub(super) fn is_free_now(&self) {
        #[cfg(not(loom))]
        self.freed.notify_all();
    }

    /// Keeps the dirty bits of a mapping that goes, if nobody sets any more of them.
    fn keep_last_bits(&self, state: &State, range: &IovaRange) -> LastBits {
        if !state.page_tables.are_quiet() {
            return LastBits::Unknown;
        }
        match self.keep(state, &state.page_tables, range, After::Keep) {
            Ok(()) => LastBits::Kept,
            Err(error) => {
                tracing::warn!(%error, %range, "all that goes out of use counts as dirty");
                LastBits::Unknown
            }
        }
    }

    /// Keeps what is due in a page table that no device uses, which is to be [destroyed](Self::destroy).
    pub(super) fn keep_bits_of(&self, state: &State, page_table: PageTable) -> ObjectId {
        let id = page_table.id;
        let has_bits = state.log.is_some() && page_table.control.is_some();
        let gone = PageTables::of(page_table);
        if has_bits && let Err(error) = self.keep(state, &gone, &IovaRange::ALL, After::Keep) {
            tracing::warn!(%error, "all that is mapped counts as dirty");
            for range in self.to_read(state, &IovaRange::ALL) {
                state.kept.mark(range);
            }
        }
        id
    }

    /// Destroys a page table that is in no list. What is mapped in it is the same as before.
    pub(super) fn destroy(&self, page_table: ObjectId) {
        if let Err(error) = self.kernel.destroy(page_table) {
            tracing::warn!(%error, "a page table that nobody uses is not destroyed");
        }
    }

    /// Marks in `report` what is due in its range, and forgets that.
    pub(super) fn take(&self, state: &State, report: &mut ReportBitmap<'_>) -> io::Result<()> {
        let range = report.range();
        for piece in self.to_read(state, &range) {
            let found = state.page_tables.read(&*self.kernel, &piece, After::Clear)?;
            if range.contains(&piece) {
                found.give(&piece, GRANULE, report);
            } else {
                found.give(&piece, GRANULE, &mut &state.kept);
            }
        }
        state.kept.take(&range, report);
        Ok(())
    }

    /// Marks in `report` what is due in its range.
    pub(super) fn peek(&self, state: &State, report: &mut ReportBitmap<'_>) -> io::Result<()> {
        let range = report.range();
        for piece in self.to_read(state, &range) {
            let found = state.page_tables.read(&*self.kernel, &piece, After::Keep)?;
            found.give(&piece, GRANULE, report);
        }
        state.kept.peek(&range, report);
        Ok(())
    }

    /// Forgets what is due in `range`, and nothing beyond.
    pub(super) fn discard(&self, state: &State, range: &IovaRange) -> io::Result<()> {
        self.keep(state, &state.page_tables, range, After::Clear)?;
        state.kept.discard(range);
        Ok(())
    }

    /// Switches tracking in every page table.
    pub(super) fn set_tracking(&self, state: &State, tracking: Tracking) -> io::Result<()> {
        state.page_tables.set_tracking(&*self.kernel, tracking)
    }

    /// Copies or moves the dirty bits that `page_tables` have in `range` to what is kept.
    fn keep(
        &self,
        state: &State,
        page_tables: &PageTables,
        range: &IovaRange,
        after: After,
    ) -> io::Result<()> {
        for piece in self.to_read(state, range) {
            let found = page_tables.read(&*self.kernel, &piece, after)?;
            found.give(&piece, GRANULE, &mut &state.kept);
        }
        Ok(())
    }

    /// What has to be read for the dirty bits of `range`.
    fn to_read(&self, state: &State, range: &IovaRange) -> Vec<IovaRange> {
        let ranges = state.mappings.to_read(range, self.leaves, self.page);
        match self.leaves {
            Leaves::Large => ranges,
            Leaves::Small => ranges.iter().flat_map(divided).collect(),
        }
    }
}

/// The parts of `range`, none of them longer than [`MOST_AT_ONCE`].
fn divided(range: &IovaRange) -> impl Iterator<Item = IovaRange> {
    let last = range.last().get();
    let starts = (range.start().get()..=last).step_by(MOST_AT_ONCE as usize);
    starts.map(move |start| IovaRange::of(start, last.min(start + (MOST_AT_ONCE - 1))))
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.destroy(self.ioas) {
            tracing::warn!(%error, "an I/O address space is not destroyed");
        }
    }
}
