//! Which tracker serves a device.
//!
//! | device | its page table has a tracker | it has its own | served by |
//! |---|---|---|---|
//! | emulated | any | any | the address space's software tracker |
//! | passthrough | yes | any | the page table's |
//! | passthrough | no | yes | its own |
//! | passthrough | no | no | nothing: refused, or every page is assumed dirty if the user asks for that |

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::assume_dirty::AssumeDirty;
use crate::{DirtyTracker, LogError, SoftwareTracker};

/// What a device is, as far as its writes can be recorded.
#[derive(Clone, Debug)]
pub enum DeviceKind {
    /// Software writes guest memory on its behalf, and marks what it wrote in the software tracker.
    Emulated,
    /// Hardware writes guest memory, through an IOMMU's page table.
    Passthrough {
        /// The tracker of the page table that the device is attached to; the same one for every device attached to it.
        page_table_tracker: Option<Arc<dyn DirtyTracker>>,
        /// The device's own.
        device_tracker: Option<Arc<dyn DirtyTracker>>,
        /// What to do when there is neither.
        without_tracker: WithoutTracker,
    },
}

/// What to do with a device that nothing can track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutTracker {
    /// Refuse it: it cannot be migrated.
    #[default]
    Refuse,
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
        })
    }
}

/// Why a device was not attached.
#[derive(Clone, Debug, Error)]
pub enum SelectionError {
    /// Nothing would record what it writes.
    #[error(
        "nothing can track what {device} writes: neither its page table nor the device itself has a dirty tracker"
    )]
    NoTracker {
        /// The device's name.
        device: String,
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
) -> Result<(Selection, Arc<dyn DirtyTracker>), SelectionError> {
    let DeviceKind::Passthrough {
        page_table_tracker,
        device_tracker,
        without_tracker,
    } = kind
    else {
        return Ok((Selection::Software, software.clone()));
    };
    match (page_table_tracker, device_tracker, without_tracker) {
        (Some(tracker), _, _) => Ok((Selection::PageTable, tracker)),
        (None, Some(tracker), _) => Ok((Selection::Device, tracker)),
        (None, None, WithoutTracker::AssumeDirty) => {
            Ok((Selection::AssumeDirty, Arc::new(AssumeDirty::new())))
        }
        (None, None, WithoutTracker::Refuse) => Err(SelectionError::NoTracker {
            device: name.to_owned(),
        }),
    }
}
