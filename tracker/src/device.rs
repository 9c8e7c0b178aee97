//! [`DeviceTracker`]: a device that records its own DMA, by VFIO's DMA logging.
//!
//! The log is the device's, so a bit outlives the mapping it was written through. What a device can do is found by trying:
//! - **Page sizes.** Asked for one it cannot track with, a device takes another and says which. [`DeviceTracker::new`] asks
//!   for all.
//! - **Ranges.** The kernel takes at least as many as fit into a page (256), a device possibly fewer in all, or none that
//!   are together too short. When a list is refused the nearest ranges are merged, and then the last one is made longer, until
//!   it is taken; reports are filtered to what was started.
//!
//! A read clears all of a tracked page, also of one that only partly lies in the range to read: what is beyond the report
//! is kept for the next one. What is longer than memory can be, as all addresses are, is read in pages of 1 GiB: to tell smaller
//! ones apart would take hundreds of thousands of reads. After an error the log is lost, says the kernel's interface, and so every
//! further read fails until the tracker is stopped.

mod limits;
mod log;
#[cfg(all(test, not(loom)))]
mod model;
mod sys;
#[cfg(all(test, not(loom)))]
mod tests;
mod tracking;

use std::io;
use std::sync::Arc;

use thiserror::Error;
use vfio_ioctls::VfioDevice;

use crate::granules::Granules;
use crate::sync::Mutex;
use crate::{Candidate, PageSize, PageSizes, RangeSet};

pub use log::DmaLog;
pub use sys::report_dma_logging;

/// Why a device has no tracker.
#[derive(Debug, Error)]
pub enum DeviceTrackerError {
    /// The device, or its driver, does not log DMA.
    #[error("the device does not log its DMA")]
    Unsupported,
    /// It does, but a short log of nothing could not be started and stopped.
    #[error("the device's DMA log does not start")]
    Trial(#[source] io::Error),
    /// There is no room for bits.
    #[error("no memory for the device's log")]
    OutOfMemory(#[source] io::Error),
}

/// A device that records what it writes. See the module's documentation.
#[derive(Debug)]
pub struct DeviceTracker {
    log: Box<dyn DmaLog>,
    page_sizes: PageSizes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// While the tracker runs.
    running: Option<Running>,
    /// What was read of the device and not handed over.
    kept: Granules,
    /// For what the next read finds, where a report has not the words for it: kept, since memory that is new for each read costs
    /// more than what is found in it.
    words: Vec<u64>,
}

#[derive(Debug)]
struct Running {
    started: RangeSet,
    /// What the device tracks with.
    page_size: PageSize,
    /// Why pages may be missing.
    lost: Option<String>,
}

impl DeviceTracker {
    /// The tracker of a device of VFIO's, which nobody else has log its DMA.
    ///
    /// Starts and stops logs of the device to learn what it can do.
    ///
    /// # Errors
    /// [`DeviceTrackerError`].
    pub fn new(device: Arc<VfioDevice>) -> Result<Self, DeviceTrackerError> {
        Self::of(Box::new(log::Vfio(device)))
    }

    /// The tracker of a device whose log is `log`, which nobody else uses.
    ///
    /// Starts and stops logs of the device to learn what it can do.
    ///
    /// # Errors
    /// [`DeviceTrackerError`].
    pub fn of(log: Box<dyn DmaLog>) -> Result<Self, DeviceTrackerError> {
        let page_sizes = limits::page_sizes(&*log)?;
        let kept = Granules::of_whole_space().map_err(DeviceTrackerError::OutOfMemory)?;
        let state = State {
            running: None,
            kept,
            words: Vec::new(),
        };
        Ok(Self {
            log,
            page_sizes,
            state: Mutex::new(state),
        })
    }

    /// The tracker of a device, or why it has none, to select from.
    pub fn candidate(device: Arc<VfioDevice>) -> Candidate {
        Self::candidate_of(Box::new(log::Vfio(device)))
    }

    /// The tracker of a device whose log is `log`, or why it has none, to select from.
    pub fn candidate_of(log: Box<dyn DmaLog>) -> Candidate {
        match Self::of(log) {
            Ok(tracker) => Candidate::Tracker(Arc::new(tracker)),
            Err(error) => Candidate::missing(&error),
        }
    }
}
