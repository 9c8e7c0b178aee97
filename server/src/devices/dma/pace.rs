//! A lane's share of a rate: when its next write is due.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// A lane that is later than this (its thread did not run, or the device was stopped) does not catch up.
const MAX_LAG: Duration = Duration::from_millis(100);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Spreads the writes of one lane over time. Lanes write in turn, so that the rate holds over all of them.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    /// Writes since then.
    writes: u64,
    share: Share,
}

/// What a lane's pace follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Writes per second of all lanes; not zero.
    pub(super) rate: NonZeroU64,
    /// Lanes that write.
    pub(super) lanes: u64,
    /// This lane among them.
    pub(super) lane: u64,
}

impl Pace {
    /// A pace that begins now.
    pub(super) fn new(share: Share, now: Instant) -> Self {
        Self {
            since: now,
            writes: 0,
            share,
        }
    }

    /// How long to wait for the next write; `None` when it is due.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let turn = u128::from(self.writes) * u128::from(self.share.lanes) + u128::from(self.share.lane);
        let nanos = turn.saturating_mul(NANOS_PER_SECOND) / u128::from(self.share.rate.get());
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let elapsed = now.saturating_duration_since(self.since);
        let wait = due.checked_sub(elapsed).filter(|wait| !wait.is_zero());
        if elapsed.saturating_sub(due) > MAX_LAG {
            // The write that is due now is the first of its lane's new turns.
            self.since = now;
            self.writes = 0;
        }
        wait
    }

    /// A write was made.
    pub(super) fn count(&mut self) {
        self.writes += 1;
    }

    /// Whether this is the pace for `share`.
    pub(super) fn is_for(&self, share: Share) -> bool {
        self.share == share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(rate: u64, lanes: u64, lane: u64) -> Share {
        Share {
            rate: rate.try_into().unwrap(),
            lanes,
            lane,
        }
    }

    /// Writes made in `time`, looked at every `step`.
    fn writes(share: Share, time: Duration, step: Duration) -> u64 {
        let start = Instant::now();
        let mut pace = Pace::new(share, start);
        let (mut now, mut writes) = (start, 0);
        while now < start + time {
            while pace.wait(now).is_none() {
                pace.count();
                writes += 1;
            }
            now += step;
        }
        writes
    }

    #[test]
    fn the_lanes_together_hold_the_rate() {
        for (rate, lanes) in [(1, 64), (1000, 1), (1000, 7), (333_333, 4)] {
            let time = Duration::from_secs(3);
            let sum: u64 = (0..lanes)
                .map(|lane| writes(share(rate, lanes, lane), time, Duration::from_millis(1)))
                .sum();
            assert!(
                sum.abs_diff(3 * rate) <= 1 + rate / 100,
                "{sum} writes at {rate} a second"
            );
        }
    }

    #[test]
    fn a_late_lane_does_not_catch_up() {
        let start = Instant::now();
        let mut pace = Pace::new(share(1000, 1, 0), start);
        let late = start + Duration::from_hours(1);
        let mut burst = 0;
        while pace.wait(late).is_none() {
            pace.count();
            burst += 1;
        }
        assert!(burst <= 2);
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let now = Instant::now();
        let mut slow = Pace::new(share(1, 64, 63), now);
        slow.writes = u64::MAX - 1;
        assert!(slow.wait(now).is_some());
        let mut fast = Pace::new(share(u64::MAX, 64, 63), now);
        assert_eq!(fast.wait(now), None);
    }
}
