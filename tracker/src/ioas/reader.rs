//! [`Reader`]: what one reader of the log has coming.

use super::LogError;
use crate::granules::Granules;
use crate::{IovaRange, RangeSet};

/// Names a reader of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderId(pub(super) u64);

/// One reader of the log.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) id: ReaderId,
    /// What it has started.
    pub(super) ranges: RangeSet,
    /// Pages that were taken out of a tracker when somebody else read it, and that this reader has not seen.
    pub(super) due: Granules,
    /// Set once pages may have been lost.
    pub(super) lost: Option<LogError>,
}

impl Reader {
    /// Whether this reader may be told of `range`.
    pub(super) fn check(&self, range: &IovaRange) -> Result<(), LogError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        if !self.ranges.contains(range) {
            return Err(LogError::RangeNotStarted(*range));
        }
        Ok(())
    }

    /// Whether any of `range` concerns this reader.
    pub(super) fn reaches(&self, range: &IovaRange) -> bool {
        self.ranges.overlap_with(range).next().is_some()
    }
}
