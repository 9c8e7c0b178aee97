//! Finding out by trying what a device can log.

use std::io;

use rustix::io::Errno;

use super::DeviceTrackerError;
use super::log::DmaLog;
use crate::granules::GRANULE;
use crate::{Iova, IovaRange, PageSize, PageSizes, RangeSet};

/// Lengths of a range for trials, as devices have both a least and a most.
const TRIAL_LENGTHS: [u64; 5] = [1 << 32, 1 << 36, 1 << 28, 1 << 24, 1 << 40];

/// The largest page size that is tried.
const LARGEST_PAGE: u64 = 1 << 30;

/// The ranges that the kernel takes in any case.
const KERNEL_RANGES: usize = 256;

/// The longest that a range is made: all that x86 processors can map.
const LONGEST: u64 = 1 << 48;

/// The page sizes that the device tracks with.
pub(super) fn page_sizes(log: &dyn DmaLog) -> Result<PageSizes, DeviceTrackerError> {
    let (trial, smallest) = smallest_page(log)?;
    if smallest.bytes() > LARGEST_PAGE {
        let error = io::Error::other(format!("it tracks in pages of {smallest} bytes"));
        return Err(DeviceTrackerError::Trial(error));
    }
    let mut mask = smallest.bytes();
    let mut size = smallest.bytes() * 2;
    // It has all between the smallest and the largest.
    while size <= LARGEST_PAGE.min(trial.len()) {
        match PageSize::new(size) {
            Some(asked) if try_once(log, trial, asked).is_ok_and(|taken| taken == asked) => mask |= size,
            _ => break,
        }
        size *= 2;
    }
    PageSizes::from_mask(mask).ok_or(DeviceTrackerError::Unsupported)
}

/// A range that the device logs, and what it makes of the wish for the smallest pages.
fn smallest_page(log: &dyn DmaLog) -> Result<(IovaRange, PageSize), DeviceTrackerError> {
    let mut refusal = io::Error::from(Errno::OPNOTSUPP);
    for length in TRIAL_LENGTHS {
        let trial = IovaRange::of(0, length - 1);
        match try_once(log, trial, GRANULE) {
            Ok(smallest) => return Ok((trial, smallest.max(GRANULE))),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTTY) => {
                return Err(DeviceTrackerError::Unsupported);
            }
            Err(error) if is_about_limits(&error) => refusal = error,
            Err(error) => return Err(DeviceTrackerError::Trial(error)),
        }
    }
    Err(DeviceTrackerError::Trial(refusal))
}

/// Starts and stops a log. Returns the page size that the device took.
fn try_once(log: &dyn DmaLog, range: IovaRange, page_size: PageSize) -> io::Result<PageSize> {
    let taken = log.start(&[range], page_size)?;
    log.stop()?;
    Ok(taken)
}

/// Starts the log of all of `wanted`, and possibly of more. Returns the page size that the device took.
pub(super) fn start(log: &dyn DmaLog, wanted: &RangeSet, page_size: PageSize) -> io::Result<PageSize> {
    let mut refusal = None;
    for attempt in attempts(wanted, page_size) {
        match log.start(attempt.ranges(), page_size) {
            Ok(taken) => {
                if refusal.is_some() {
                    tracing::debug!(asked = wanted.ranges().len(), ranges = ?attempt.ranges(), "merged");
                }
                return Ok(taken);
            }
            Err(error) if is_about_limits(&error) => {
                // What was asked for is to be explained, not what came of it.
                refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or_else(|| Errno::INVAL.into()))
}

/// What to ask for, in order: `wanted`, fewer and fewer ranges, and one that becomes longer.
fn attempts(wanted: &RangeSet, page_size: PageSize) -> impl Iterator<Item = RangeSet> {
    let aligned = wanted.aligned(page_size);
    let count = aligned.ranges().len();
    let fewer = std::iter::successors(Some(KERNEL_RANGES), |max| Some(max / 2).filter(|max| *max > 0));
    let merged: Vec<RangeSet> = fewer
        .filter(|max| *max < count)
        .map(|max| aligned.coarsened(max))
        .collect();
    let one = aligned.coarsened(1);
    let longer: Vec<RangeSet> = one.ranges().first().map_or_else(Vec::new, lengthened);
    std::iter::once(aligned).chain(merged).chain(longer)
}

/// The range, with lengths that are greater and greater powers of two.
fn lengthened(range: &IovaRange) -> Vec<RangeSet> {
    let lengths = (0..=LONGEST.trailing_zeros()).map(|shift| 1_u64 << shift);
    let ranges = lengths
        .filter(|length| *length > range.len())
        .filter_map(|length| lengthen(range, length));
    ranges.map(RangeSet::from).collect()
}

/// The range made `length` bytes long, upwards or, where the addresses end, downwards.
fn lengthen(range: &IovaRange, length: u64) -> Option<IovaRange> {
    let end = range.start().get().checked_add(length)?;
    let start = range.start().get() - end.saturating_sub(LONGEST).min(range.start().get());
    IovaRange::from_len(Iova::new(start), length).ok()
}

/// Whether other ranges might be taken.
fn is_about_limits(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::TOOBIG | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSPC | Errno::OVERFLOW)
    )
}
