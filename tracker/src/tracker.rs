//! [`DirtyTracker`]: the one interface over every way there is to learn what a device wrote.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use thiserror::Error;

use crate::{BarrierError, IovaRange, PageSize, ReportBitmap};

/// Records which pages of an address space are written.
///
/// A tracker is *running* while its set of started ranges is not empty. A page is *due* from the moment it is written
/// in a started range until a [`read_and_clear`](Self::read_and_clear) that covers all of it returns it.
///
/// Calls may come from any thread; the owner of a tracker (an [`Ioas`](crate::Ioas)) makes one at a time.
pub trait DirtyTracker: Send + Sync + fmt::Debug {
    /// What kind of tracker this is.
    fn kind(&self) -> TrackerKind;

    /// What it can do. Never changes.
    fn capabilities(&self) -> Capabilities;

    /// Makes `ranges`, which do not overlap, the set of started ranges, in place of the ones before.
    ///
    /// Pages that are in the new set and were not in the old one start clean. Pages that are in both keep what is due,
    /// unless the tracker has to be stopped for a change ([`RangeUpdate::Restart`]): it then refuses with
    /// [`TrackerError::Running`]. After an error the old set is in force.
    ///
    /// `page_size` is one of [`Capabilities::page_sizes`], the finest that reports are expected to ask for. Tracking
    /// is on when this returns: a write that follows is recorded.
    ///
    /// # Errors
    /// [`TrackerError`], with nothing changed.
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<(), TrackerError>;

    /// Ends tracking and forgets what is due. A tracker that is not running stays as it is.
    ///
    /// # Errors
    /// [`TrackerError::Failed`]; tracking may go on then.
    fn stop(&self) -> Result<(), TrackerError>;

    /// Marks in `report` what is due in its range, and forgets that.
    ///
    /// The range lies within one started range. What lies outside of the report's range, the rest of a page that only
    /// partly lies in it included, stays due.
    ///
    /// # Errors
    /// [`TrackerError`]. Pages may be lost then: neither in the report nor due any more.
    fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError>;

    /// Marks in `report` what is due in its range, and keeps it due.
    ///
    /// # Errors
    /// [`TrackerError`]; nothing is lost. [`TrackerError::NoPeek`] if [`Capabilities::peek`] says so.
    fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), TrackerError>;
}

/// The kinds of trackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackerKind {
    /// Software-only devices mark what they write.
    Software,
    /// The IOMMU sets dirty bits in its page table.
    Iommu,
    /// The device records its own DMA.
    Device,
    /// Nobody records anything, and every page counts as written.
    AssumeDirty,
    /// Nobody records anything, and no log may begin.
    Untracked,
}

impl fmt::Display for TrackerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software tracker",
            Self::Iommu => "IOMMU tracker",
            Self::Device => "device tracker",
            Self::AssumeDirty => "assumption that every page is dirty",
            Self::Untracked => "lack of a tracker",
        })
    }
}

/// What a tracker can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What starting a range switches on.
    pub control: RangeControl,
    /// The page sizes it can track with.
    pub page_sizes: PageSizes,
    /// The most ranges it can track at once; `None` is no limit.
    pub max_ranges: Option<NonZeroUsize>,
    /// Whether ranges can change while it runs.
    pub update: RangeUpdate,
    /// Whether it can be read without clearing.
    pub peek: PeekSupport,
}

/// What starting a range switches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeControl {
    /// Everything: writes are recorded in the whole address space, and reports are filtered to the ranges.
    Global,
    /// The range alone.
    PerRange,
}

/// Whether ranges can change while a tracker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeUpdate {
    /// They can; what is due stays due.
    Live,
    /// It has to be stopped and started again, and does not know what was written in between.
    Restart,
}

/// Whether a tracker can be read without clearing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekSupport {
    /// It can.
    Native,
    /// Reading clears.
    None,
}

/// A set of page sizes, never empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageSizes(u64);

impl PageSizes {
    /// Every power of two.
    pub const ANY: Self = Self(u64::MAX);

    /// The one page size `size`.
    pub const fn only(size: PageSize) -> Self {
        Self(size.bytes())
    }

    /// The page sizes whose sum is `mask`, as the kernel writes such a set; `None` if it is empty.
    pub const fn from_mask(mask: u64) -> Option<Self> {
        if mask == 0 { None } else { Some(Self(mask)) }
    }

    /// Whether `size` is in the set.
    pub const fn contains(self, size: PageSize) -> bool {
        self.0 & size.bytes() != 0
    }

    /// The page size to track with for reports of `wanted`: the largest that is not larger, else the smallest.
    pub fn best_for(self, wanted: PageSize) -> PageSize {
        let not_larger = self.0 & (wanted.bytes() | (wanted.bytes() - 1));
        let shift = match not_larger {
            0 => self.0.trailing_zeros(),
            sizes => sizes.ilog2(),
        };
        PageSize::new(1 << shift).unwrap_or(wanted)
    }
}

impl fmt::Display for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("pages of any size");
        }
        let sizes = (0..u64::BITS).filter(|shift| self.0 >> shift & 1 != 0);
        let names: Vec<String> = sizes.map(name_of_size).collect();
        write!(f, "pages of {}", names.join(", "))
    }
}

/// The size of `1 << shift` bytes, in words.
fn name_of_size(shift: u32) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    format!("{} {}", 1 << (shift % 10), UNITS[(shift / 10) as usize])
}

impl fmt::Debug for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSizes({:#x})", self.0)
    }
}

/// Why a tracker did not do what it was asked.
#[derive(Debug, Error)]
pub enum TrackerError {
    /// The range to read does not lie within a started range.
    #[error("{0} does not lie within a started range")]
    NotStarted(IovaRange),
    /// Its ranges cannot change while it runs ([`RangeUpdate::Restart`]).
    #[error("the ranges cannot change while the tracker runs")]
    Running,
    /// It cannot track that many ranges.
    #[error("{asked} ranges are more than the {max} that the tracker can track")]
    TooManyRanges {
        /// The ranges asked for.
        asked: usize,
        /// The most it can track.
        max: usize,
    },
    /// Two of the ranges to start overlap.
    #[error(transparent)]
    Overlap(#[from] crate::OverlapError),
    /// It cannot track with that page size.
    #[error("pages of {0} bytes are not supported")]
    PageSize(PageSize),
    /// Reading it clears it ([`PeekSupport::None`]).
    #[error("the tracker cannot be read without clearing")]
    NoPeek,
    /// It stands for a device that nothing tracks, so that there can be no log.
    #[error("nothing can track what {0} writes")]
    Untracked(Arc<str>),
    /// The reader's barrier failed.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// What is behind it failed.
    #[error("the tracker failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}
