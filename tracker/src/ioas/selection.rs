//! Which tracker serves a device.
//!
//! | device | its page table has a tracker | it has its own | served by |
//! |---|---|---|---|
//! | emulated | any | any | the address space's software tracker |
//! | passthrough | yes | any | the page table's |
//! | passthrough | no | yes | its own |
//! | passthrough | no | no | nothing: refused; or attached without a tracker, so that the address space has no log; or every page is assumed dirty |

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::untracked::Untracked;
use crate::{DirtyTracker, LogError, RangeControl, SoftwareTracker};

/// What a device is, as far as its writes can be recorded.
#[derive(Clone, Debug)]
pub enum DeviceKind {
    /// Software writes guest memory on its behalf, and marks what it wrote in the software tracker.
    Emulated,
    /// Hardware writes guest memory, through an IOMMU's page table.
    Passthrough {
        /// The tracker of the page table that the device is attached to; the same one for every device attached to it.
        page_table_tracker: Candidate,
        /// The device's own.
        device_tracker: Candidate,
        /// What to do when there is neither.
        without_tracker: WithoutTracker,
    },
}

/// A tracker that might serve a device, or why there is none.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// There is one.
    Tracker(Arc<dyn DirtyTracker>),
    /// There is none, for this reason.
    Missing(Arc<str>),
}

impl Candidate {
    /// None, because of `reason`: an error, with all its causes.
    pub fn missing(reason: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(reason.source(), |cause| cause.source());
        let whole = causes.fold(reason.to_string(), |whole, cause| format!("{whole}: {cause}"));
        Self::Missing(whole.into())
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tracker = match self {
            Self::Tracker(tracker) => tracker,
            Self::Missing(reason) => return write!(f, "none: {reason}"),
        };
        let capabilities = tracker.capabilities();
        write!(f, "{}, {}, ", tracker.kind(), capabilities.page_sizes)?;
        match capabilities.control {
            RangeControl::Global => f.write_str("switched on for the whole address space"),
            RangeControl::PerRange => f.write_str("switched on by range"),
        }
    }
}

/// Which trackers a device might have been served by, and which one it is. Its [`Display`](fmt::Display) has a line for each.
///
/// It is words only: who keeps it keeps no tracker, nor the device behind one.
#[derive(Clone, Debug)]
pub struct Explanation {
    device: String,
    selection: Selection,
    /// What was said of the page table's and of the device's, for a passthrough device.
    candidates: Option<[String; 2]>,
}

impl Explanation {
    /// Which one it is.
    pub fn selection(&self) -> Selection {
        self.selection
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.selection)?;
        if let Some([page_table, device]) = &self.candidates {
            write!(f, "\n  its page table: {page_table}\n  its own: {device}")?;
        }
        Ok(())
    }
}

/// What to do with a device that nothing can track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutTracker {
    /// Refuse it: it cannot be migrated.
    #[default]
    Refuse,
    /// Attach it; as long as it is there, no log of the address space can start, as it would lack what the device writes.
    BlockLog,
    /// Report every page as dirty, always.
    AssumeDirty,
}

/// Which tracker serves a device. Its [`Display`](fmt::Display) says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The software tracker of the address space.
    Software,
    /// The tracker of the page table.
    PageTable,
    /// The device's own tracker.
    Device,
    /// None: every page is reported.
    AssumeDirty,
    /// None: the address space has no log.
    Untracked,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "the address space's software tracker, because the device is emulated",
            Self::PageTable => "the IOMMU's tracker, because the device's page table has one",
            Self::Device => "the device's own tracker, because its page table has none",
            Self::AssumeDirty => {
                "no tracker: every page is reported dirty, because neither the page table nor the device has one and this was asked for"
            }
            Self::Untracked => {
                "no tracker: the VM cannot be migrated, because neither the page table nor the device has one"
            }
        })
    }
}

/// Why a device was not attached.
#[derive(Clone, Debug, Error)]
pub enum SelectionError {
    /// Nothing would record what it writes.
    #[error(
        "nothing can track what {device} writes: neither its page table ({page_table}) nor the device itself ({own}) \
         has a dirty tracker"
    )]
    NoTracker {
        /// The device's name.
        device: String,
        /// Why its page table has none.
        page_table: Arc<str>,
        /// Why it has none of its own.
        own: Arc<str>,
    },
    /// The address space is being tracked, and the device's tracker did not join.
    #[error("the dirty tracker of {device} does not start")]
    NotStarted {
        /// The device's name.
        device: String,
        /// Why.
        source: LogError,
    },
}

/// Selects the tracker for a device.
pub(super) fn select(
    kind: DeviceKind,
    name: &str,
    software: &Arc<SoftwareTracker>,
) -> Result<(Explanation, Arc<dyn DirtyTracker>), SelectionError> {
    let explain = |selection, candidates| Explanation {
        device: name.to_owned(),
        selection,
        candidates,
    };
    let DeviceKind::Passthrough {
        page_table_tracker,
        device_tracker,
        without_tracker,
    } = kind
    else {
        return Ok((explain(Selection::Software, None), software.clone()));
    };
    let (selection, tracker): (_, Arc<dyn DirtyTracker>) =
        match (&page_table_tracker, &device_tracker, without_tracker) {
            (Candidate::Tracker(tracker), _, _) => (Selection::PageTable, tracker.clone()),
            (Candidate::Missing(_), Candidate::Tracker(tracker), _) => (Selection::Device, tracker.clone()),
            (Candidate::Missing(_), Candidate::Missing(_), WithoutTracker::AssumeDirty) => {
                (Selection::AssumeDirty, Arc::new(Untracked::all_dirty()))
            }
            (Candidate::Missing(_), Candidate::Missing(_), WithoutTracker::BlockLog) => {
                (Selection::Untracked, Arc::new(Untracked::blocks_log(name)))
            }
            (Candidate::Missing(page_table), Candidate::Missing(own), WithoutTracker::Refuse) => {
                return Err(SelectionError::NoTracker {
                    device: name.to_owned(),
                    page_table: page_table.clone(),
                    own: own.clone(),
                });
            }
        };
    let candidates = [page_table_tracker, device_tracker].map(|candidate| candidate.to_string());
    Ok((explain(selection, Some(candidates)), tracker))
}
