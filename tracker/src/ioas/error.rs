//! [`LogError`].

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::MAX_RANGES;
use crate::{IovaRange, OverlapError, TrackerError, TrackerKind};

/// Why a log was not started, stopped or read.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// The device has started its log already.
    #[error("the log has been started already")]
    AlreadyStarted,
    /// The device has not started its log.
    #[error("the log has not been started")]
    NotStarted,
    /// The range does not lie within the ranges that were started.
    #[error("{0} does not lie within the started ranges")]
    RangeNotStarted(IovaRange),
    /// The list of ranges is too long.
    #[error("{asked} ranges are more than the {MAX_RANGES} that a log may be started with")]
    TooManyRanges {
        /// Its length.
        asked: usize,
    },
    /// Two ranges of the list overlap.
    #[error(transparent)]
    BadRanges(#[from] OverlapError),
    /// A tracker failed. If it failed to be read, the log is lost until it is started anew.
    #[error("the {tracker} failed: the log is lost")]
    TrackerFailed {
        /// Which tracker failed.
        tracker: TrackerKind,
        /// What it said.
        source: Arc<TrackerError>,
    },
    /// A device of the address space is tracked by nothing. As long as it is attached there is no log.
    #[error("nothing can track what {0} writes: its VM has no log, and cannot be migrated")]
    Untracked(Arc<str>),
    /// A device did not stop, and may write memory that nobody is told of. The log is lost until it is started anew.
    #[error("device {0} did not stop and may go on writing: the log is lost")]
    DeviceFailed(Arc<str>),
    /// There is no room for another reader's bits.
    #[error("no memory for the log")]
    OutOfMemory(#[source] Arc<io::Error>),
}

impl LogError {
    pub(super) fn tracker_failed(tracker: TrackerKind, source: TrackerError) -> Self {
        match source {
            TrackerError::Untracked(device) => Self::Untracked(device),
            source => Self::TrackerFailed {
                tracker,
                source: Arc::new(source),
            },
        }
    }
}
