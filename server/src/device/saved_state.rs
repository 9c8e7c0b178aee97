//! Saving and restoring.
//!
//! A device's saved-state types are types of their own, apart from those it runs with, so that a change to the device does
//! not change the stream by accident. Rules for changing them: `docs/src/saved-state.md`.

/// The state of a quiescent device as bytes.
pub trait SavedState: Send + Sync {
    /// What the destination must be for this state to make sense there.
    fn identity(&self) -> Identity;

    /// The whole state of the quiescent device, as CBOR.
    ///
    /// # Errors
    ///
    /// [`SaveError`] when the device is failed, so that its state would not hold.
    fn save(&self) -> Result<Vec<u8>, SaveError>;

    /// An upper bound of the length of [`save`](Self::save)'s result as the device is configured now, in bytes.
    ///
    /// Clients plan the downtime with it while the device runs.
    fn max_state_len(&self) -> usize;

    /// Checks `state` whole, and only then takes it over: on an error the quiescent device is as it was.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] for anything that [`save`](Self::save) of a device with this identity cannot have written.
    fn restore(&self, state: &[u8]) -> Result<(), RestoreError>;
}

/// Kind, version and configuration of a device. Two devices with equal identities take each other's state.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The kind of device, for example `"dma"`.
    pub kind: String,
    /// Version of the device's saved state.
    pub version: u32,
    /// What the device was configured with, by name, in order.
    pub config: Vec<(String, u64)>,
}

/// Why a device's state could not be saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot save the device's state: {0}")]
pub struct SaveError(pub String);

/// Why a device's state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device's saved state is not valid: {0}")]
pub struct RestoreError(pub String);
