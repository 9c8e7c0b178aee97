//! The saved state: its types, and the checks that a state must pass before it is taken over.
//!
//! A state is taken over when it is one that [`encode`] can have written, byte for byte, for a device with these lanes.

mod check;
mod types;

use self::types::SavedDevice;
use super::Lanes;
use super::events::EventState;
use super::generator::GeneratorState;
use super::ring::RingState;
use crate::device::{RestoreError, SaveError, decode_state, encode_state, require};

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
    encode_state(&SavedDevice::new(snapshot))
}

/// The state that `bytes` are, after every check.
pub(super) fn decode(bytes: &[u8], lanes: Lanes) -> Result<Snapshot, RestoreError> {
    require(bytes.len() <= MAX_BYTES, "longer than a state can be")?;
    let saved: SavedDevice = decode_state(bytes, VERSION)?;
    let snapshot = saved.check(lanes)?;
    // What the checks would bend into something else was not saved by a device.
    let canonical = encode(&snapshot).map_err(|error| RestoreError(error.0))?;
    require(canonical == bytes, "not in the form in which states are written")?;
    Ok(snapshot)
}
