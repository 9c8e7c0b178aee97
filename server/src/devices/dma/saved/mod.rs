//! The saved state: its types, and the checks that a state must pass before it is taken over.
//!
//! A state is taken over when it is one that [`encode`] can have written, byte for byte, for a device with these lanes.

mod check;
mod types;

use serde::de::DeserializeOwned;

use self::check::require;
use self::types::{SavedDevice, SavedVersion};
use super::Lanes;
use super::events::EventState;
use super::generator::GeneratorState;
use super::ring::RingState;
use crate::device::{RestoreError, SaveError};

/// Version of the saved state.
pub(super) const VERSION: u32 = 1;

/// The longest state: a full ring is below half of it.
const MAX_BYTES: usize = 2 << 20;

/// The most bytes of a state besides its lists.
const MAX_FIXED: usize = 1 << 10;

/// The most bytes of a descriptor in flight: its names, and 9 bytes for each number.
const MAX_WORK: usize = 192;

/// The most bytes of a lane's position.
const MAX_POSITION: usize = 9;

/// The state of a quiescent device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) events: EventState,
    pub(super) ring_tail: u32,
    pub(super) comp_head: u32,
    pub(super) ring: RingState,
    pub(super) generator: GeneratorState,
    /// Of each lane.
    pub(super) positions: Vec<u64>,
}

/// The most bytes of a state with so many descriptors in flight.
pub(super) fn max_len(in_flight: usize, lanes: Lanes) -> usize {
    MAX_FIXED + in_flight * MAX_WORK + lanes.get() as usize * MAX_POSITION
}

/// The state as bytes.
pub(super) fn encode(snapshot: &Snapshot) -> Result<Vec<u8>, SaveError> {
    let mut bytes = Vec::new();
    match ciborium::into_writer(&SavedDevice::new(snapshot), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(SaveError(error.to_string())),
    }
}

/// The state that `bytes` are, after every check.
pub(super) fn decode(bytes: &[u8], lanes: Lanes) -> Result<Snapshot, RestoreError> {
    require(bytes.len() <= MAX_BYTES, "longer than a state can be")?;
    let SavedVersion { version } = parse(bytes)?;
    require(version == VERSION, "of another version")?;
    let saved: SavedDevice = parse(bytes)?;
    let snapshot = saved.check(lanes)?;
    // What is left over, or could be written shorter, was not written by `encode`.
    let canonical = encode(&snapshot).map_err(|error| RestoreError(error.0))?;
    require(canonical == bytes, "not in the form in which states are written")?;
    Ok(snapshot)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RestoreError> {
    ciborium::from_reader(bytes).map_err(|error| RestoreError(error.to_string()))
}
