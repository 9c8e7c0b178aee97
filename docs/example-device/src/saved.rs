//! The saved state: its type, and the checks that a state must pass before it is taken over. It changes by the rules of
//! `docs/src/saved-state.md`.

use std::num::NonZeroU32;

use pagetrail::device::{RestoreError, SaveError, decode_state, encode_state, require};
use serde::{Deserialize, Serialize};

use crate::engine::Job;

/// Version of the saved state.
pub(crate) const VERSION: u32 = 1;

/// The most bytes of a state: the names of its fields, and 9 bytes for each number.
pub(crate) const MAX_LEN: usize = 256;

/// The state of a quiescent device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) job: Job,
    pub(crate) has_cause: bool,
}

// ANCHOR: types
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDigest {
    version: u32,
    source: u64,
    table: u64,
    number: u32,
    blocks: u32,
    done: u32,
    failed: bool,
    has_cause: bool,
}

/// The state as bytes.
pub(crate) fn encode(Snapshot { job, has_cause }: Snapshot) -> Result<Vec<u8>, SaveError> {
    encode_state(&SavedDigest {
        version: VERSION,
        source: job.source,
        table: job.table,
        number: job.number,
        blocks: job.blocks,
        done: job.done,
        failed: job.failed,
        has_cause,
    })
}
// ANCHOR_END: types

// ANCHOR: checks
/// The state that `bytes` are, after every check.
pub(crate) fn decode(bytes: &[u8], max_blocks: NonZeroU32) -> Result<Snapshot, RestoreError> {
    require(bytes.len() <= MAX_LEN, "longer than a state can be")?;
    let saved: SavedDigest = decode_state(bytes, VERSION)?;
    require(
        saved.blocks <= max_blocks.get(),
        "more blocks than a job may have",
    )?;
    require(saved.done <= saved.blocks, "more blocks done than the job has")?;
    let can_have_failed = saved.blocks == 0 || saved.done < saved.blocks;
    require(
        !saved.failed || can_have_failed,
        "a job that failed when it was done",
    )?;
    Ok(Snapshot {
        job: Job {
            source: saved.source,
            table: saved.table,
            number: saved.number,
            blocks: saved.blocks,
            done: saved.done,
            failed: saved.failed,
        },
        has_cause: saved.has_cause,
    })
}
// ANCHOR_END: checks
