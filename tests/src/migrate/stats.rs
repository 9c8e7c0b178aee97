//! What a migration did, in numbers.

use serde::{Deserialize, Serialize};

use crate::oracle::Verdict;

/// Which pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassKind {
    /// The first: all memory.
    Bulk,
    /// What was written during the pass before.
    Live,
    /// The last, with the devices stopped.
    Final,
}

/// One pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassStats {
    /// Number, from 0.
    pub number: u32,
    /// Which.
    pub kind: PassKind,
    /// Pages that the report named, or all of them.
    pub pages: u64,
    /// Pages of these that are zero and were sent as a header.
    pub zero_pages: u64,
    /// Pages of these whose content the destination had already.
    pub redundant_pages: u64,
    /// Bytes for pages: content and headers.
    pub memory_bytes: u64,
    /// Bytes of device state.
    pub device_bytes: u64,
    /// Seconds for reports and copies, without the oracle's.
    pub seconds: f64,
    /// Pages written per second between the last report and this one; 0 in the first pass.
    pub dirty_rate: f64,
}

impl PassStats {
    /// Bytes that a real migration would have sent.
    pub fn wire_bytes(&self) -> u64 {
        self.memory_bytes + self.device_bytes
    }
}

/// The replay of one device's generator at the destination.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayCheck {
    /// The destination device.
    pub device: String,
    /// Page writes done when the source stopped.
    pub writes_at_switch_over: u64,
    /// Page writes done when the check was made.
    pub writes_at_check: u64,
    /// Pages of the window that were written and hold what they must.
    pub pages_right: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// A migration that came to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Bytes of guest memory.
    pub memory_size: u64,
    /// Bytes of a page of the reports.
    pub page_size: u64,
    /// The source devices.
    pub devices: Vec<String>,
    /// Whether device state was read during the passes.
    pub pre_copy: bool,
    /// Whether the devices were first kept from each other.
    pub p2p: bool,
    /// Whether the devices log their DMA; else every page was sent in every pass.
    pub dma_logging: bool,
    /// The passes.
    pub passes: Vec<PassStats>,
    /// Seconds from the first device's stop to the last one's start, without the oracle's.
    pub downtime: f64,
    /// Seconds of it all, without the oracle's.
    pub seconds: f64,
    /// The oracle's judgement.
    pub verdict: Verdict,
    /// The replay of each generator that was driven.
    pub replays: Vec<ReplayCheck>,
}

impl Outcome {
    /// Whether nothing was lost and everything goes on as it must.
    pub fn passed(&self) -> bool {
        self.verdict.passed() && self.replays.iter().all(|replay| replay.problems.is_empty())
    }

    /// Bytes that a real migration would have sent.
    pub fn wire_bytes(&self) -> u64 {
        self.passes.iter().map(PassStats::wire_bytes).sum()
    }

    /// Bytes of device state.
    pub fn device_bytes(&self) -> u64 {
        self.passes.iter().map(|pass| pass.device_bytes).sum()
    }

    /// Pages sent though the destination had their content.
    pub fn redundant_pages(&self) -> u64 {
        self.passes.iter().map(|pass| pass.redundant_pages).sum()
    }

    /// Pages sent.
    pub fn pages(&self) -> u64 {
        self.passes.iter().map(|pass| pass.pages).sum()
    }
}
