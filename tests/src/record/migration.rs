//! One migration, made of the answers of `query-migrate`.

use std::time::Duration;

use super::info::{MigrateInfo, RamInfo};
use crate::migrate::PassKind;
use crate::report::vm::{Ending, Migration, Pass, Sample};

/// Samples that are kept, at most; then every other goes.
const MAX_SAMPLES: usize = 2000;

/// A migration that is under way.
#[derive(Debug)]
pub(super) struct Watch {
    record: Migration,
    /// The counters when last looked at. A migration that has failed or was called off has none any more.
    ram: RamInfo,
    /// The guest stands still for the last pass.
    has_stopped: bool,
    error: Option<String>,
    status: Option<String>,
    samples: Thinned,
}

impl Watch {
    /// Begins at `at`, in seconds.
    pub(super) fn new(name: String, at: f64, downtime_limit: Option<Duration>) -> Self {
        Self {
            record: Migration {
                name,
                began: at,
                ended: at,
                ending: Ending::Unknown,
                downtime: None,
                standstill: None,
                downtime_limit: downtime_limit.map(|limit| limit.as_secs_f64()),
                total: None,
                memory_bytes: 0,
                wire_bytes: 0,
                device_bytes: 0,
                resent_bytes: 0,
                passes: Vec::new(),
                samples: Vec::new(),
            },
            ram: RamInfo::default(),
            has_stopped: false,
            error: None,
            status: None,
            samples: Thinned::default(),
        }
    }

    /// QEMU answered at `at`.
    pub(super) fn answered(&mut self, at: f64, info: &MigrateInfo) {
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        self.record.downtime = info.downtime.map(seconds).or(self.record.downtime);
        self.record.total = info.total_time.map(seconds).or(self.record.total);
        self.status.clone_from(&info.status);
        self.error.clone_from(&info.error_desc);
        let device_bytes = info
            .vfio
            .map_or(self.record.device_bytes, |vfio| vfio.transferred);
        self.record.device_bytes = device_bytes;
        if let Some(ram) = info.ram {
            self.counted(at, ram, info.has_stopped());
            self.samples.push(sample(at, &ram, device_bytes));
        }
    }

    /// The guest stood still for so long.
    pub(super) fn stood_still(&mut self, time: Duration) {
        self.record.standstill = Some(time.as_secs_f64());
    }

    /// Counters of memory. What was sent in a look's time in which a pass ended goes to both passes.
    fn counted(&mut self, at: f64, ram: RamInfo, has_stopped: bool) {
        let since = Sent::between(&self.ram, &ram);
        let stops = has_stopped && !self.has_stopped;
        let is_next = !self.has_stopped && ram.dirty_sync_count > self.ram.dirty_sync_count;
        let old = match self.record.passes.last_mut() {
            None => Sent::default(),
            Some(pass) => {
                let old = if stops {
                    since.while_running(&self.ram, &ram)
                } else if is_next {
                    // A pass sends what it found, and no more.
                    since.first(self.ram.remaining_pages())
                } else {
                    since
                };
                pass.add(old);
                pass.ended = at;
                old
            }
        };
        if stops || is_next || self.record.passes.is_empty() {
            self.pass_begins(at, &ram, has_stopped, since.without(old));
        }
        self.has_stopped |= has_stopped;
        self.ram = ram;
        self.record.memory_bytes = ram.total;
        self.record.wire_bytes = ram.transferred;
        let sent = ram.sent_pages().saturating_mul(ram.page_size);
        self.record.resent_bytes = sent.saturating_sub(ram.total);
    }

    fn pass_begins(&mut self, at: f64, ram: &RamInfo, has_stopped: bool, sent: Sent) {
        let number = self.record.passes.last().map_or(0, |pass| pass.last_number + 1);
        let last_number = number.max(ram.dirty_sync_count.saturating_sub(1));
        let mut pass = Pass {
            number,
            last_number,
            kind: match (has_stopped, number) {
                (true, _) => PassKind::Final,
                (false, 0) => PassKind::Bulk,
                (false, _) => PassKind::Live,
            },
            began: at,
            ended: at,
            dirty_pages: ram.remaining_pages() + sent.pages,
            sent_pages: 0,
            zero_pages: 0,
            wire_bytes: 0,
        };
        pass.add(sent);
        self.record.passes.push(pass);
    }

    /// The record, ended at `at`.
    pub(super) fn finish(mut self, at: f64) -> Migration {
        self.record.ended = at;
        self.record.ending = match (self.status.as_deref(), self.error) {
            (Some("completed"), _) => Ending::Completed,
            (Some("cancelled"), _) => Ending::Cancelled,
            (Some("failed"), error) => Ending::Failed(error.unwrap_or_else(|| "no reason given".to_owned())),
            _ => Ending::Unknown,
        };
        self.record.samples = self.samples.samples;
        self.record
    }
}

fn sample(at: f64, ram: &RamInfo, device_bytes: u64) -> Sample {
    #[expect(clippy::cast_precision_loss)] // A rate: a page more or less in 2^52 does not show.
    Sample {
        at,
        remaining_bytes: ram.remaining,
        wire_bytes: ram.transferred,
        device_bytes,
        bits_per_second: ram.mbps * 1e6,
        dirty_pages_per_second: ram.dirty_pages_rate as f64,
    }
}

/// What was sent between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    pages: u64,
    zero_pages: u64,
    bytes: u64,
}

impl Sent {
    fn between(before: &RamInfo, after: &RamInfo) -> Self {
        Self {
            pages: after.sent_pages().saturating_sub(before.sent_pages()),
            zero_pages: after.duplicate.saturating_sub(before.duplicate),
            bytes: after.transferred.saturating_sub(before.transferred),
        }
    }

    /// The part that the first `pages` have in it, all kinds of pages alike.
    fn first(self, pages: u64) -> Self {
        if pages >= self.pages {
            return self;
        }
        let share = |value: u64| (u128::from(value) * u128::from(pages) / u128::from(self.pages)) as u64;
        Self {
            pages,
            zero_pages: share(self.zero_pages),
            bytes: share(self.bytes),
        }
    }

    /// The part that was sent before the guest stopped, by the bytes of both. Multifd's bytes are not told apart; then all of it
    /// counts as sent afterwards, which is right but for the time between two looks.
    fn while_running(self, before: &RamInfo, after: &RamInfo) -> Self {
        let running = after.precopy_bytes.saturating_sub(before.precopy_bytes);
        let stopped = after.downtime_bytes.saturating_sub(before.downtime_bytes);
        let by_multifd = after.multifd_bytes > before.multifd_bytes;
        if by_multifd || running + stopped == 0 {
            return Self::default();
        }
        let pages = u128::from(self.pages) * u128::from(running) / u128::from(running + stopped);
        self.first(pages as u64)
    }

    fn without(self, part: Self) -> Self {
        Self {
            pages: self.pages - part.pages,
            zero_pages: self.zero_pages - part.zero_pages,
            bytes: self.bytes - part.bytes,
        }
    }
}

impl Pass {
    fn add(&mut self, sent: Sent) {
        self.sent_pages += sent.pages;
        self.zero_pages += sent.zero_pages;
        self.wire_bytes += sent.bytes;
    }
}

/// Samples, fewer of them the longer it lasts. The last one is always there.
#[derive(Debug)]
struct Thinned {
    samples: Vec<Sample>,
    /// One of so many is kept.
    step: usize,
    /// Samples after the last one that is kept for good.
    passed: usize,
}

impl Default for Thinned {
    fn default() -> Self {
        Self {
            samples: Vec::new(),
            step: 1,
            passed: 0,
        }
    }
}

impl Thinned {
    fn push(&mut self, sample: Sample) {
        if self.passed > 0 {
            // The last was only there for being the last.
            self.samples.pop();
        }
        self.samples.push(sample);
        self.passed = (self.passed + 1) % self.step;
        if self.passed == 0 && self.samples.len() >= MAX_SAMPLES {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.step *= 2;
        }
    }
}

#[cfg(test)]
mod tests;
