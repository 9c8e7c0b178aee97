//! Saving and restoring.
//!
//! A device's saved-state types are types of their own, apart from those it runs with, so that a change to the device does
//! not change the stream by accident. Rules for changing them: `docs/src/saved-state.md`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The kind of device, for example `"dma"`.
    pub kind: String,
    /// Version of the device's saved state.
    pub version: u32,
    /// What the device was configured with, by name, in order.
    pub config: Vec<(String, u64)>,
}

/// A device's saved state as bytes: CBOR, of which every state has one form.
///
/// # Errors
///
/// When the state has no form in CBOR. Integers, `bool`, structs, enums and vectors of those always have one.
pub fn encode_state(state: &impl Serialize) -> Result<Vec<u8>, SaveError> {
    let mut bytes = Vec::new();
    match ciborium::into_writer(state, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(SaveError(error.to_string())),
    }
}

/// The state that `bytes` are, if they are what [`encode_state`] writes for it and its field `version` is the one given. What its
/// values mean is for the device to check.
///
/// # Errors
///
/// [`RestoreError`] for another version, and for anything that is missing, left over, or written in another form.
pub fn decode_state<T: Serialize + DeserializeOwned>(bytes: &[u8], version: u32) -> Result<T, RestoreError> {
    let found: AnyVersion = parse(bytes)?;
    require(found.version == version, "of another version")?;
    let state: T = parse(bytes)?;
    let canonical = encode_state(&state).map_err(|error| RestoreError(error.0))?;
    require(canonical == bytes, "not in the form in which states are written")?;
    Ok(state)
}

/// Refuses a state, unless something holds that holds of every state that was saved.
///
/// # Errors
///
/// [`RestoreError`] with what is wrong otherwise.
pub fn require(holds: bool, otherwise: &str) -> Result<(), RestoreError> {
    if holds {
        Ok(())
    } else {
        Err(RestoreError(otherwise.to_owned()))
    }
}

/// What a state of any version says.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RestoreError> {
    ciborium::from_reader(bytes).map_err(|error| RestoreError(error.to_string()))
}

/// Why a device's state could not be saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot save the device's state: {0}")]
pub struct SaveError(pub String);

/// Why a device's state was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device's saved state is not valid: {0}")]
pub struct RestoreError(pub String);

#[cfg(test)]
mod tests {
    use ciborium::cbor;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Saved {
        version: u32,
        list: Vec<u64>,
    }

    fn saved() -> Saved {
        Saved {
            version: 3,
            list: vec![1, 2],
        }
    }

    fn refusal(bytes: &[u8], version: u32) -> String {
        decode_state::<Saved>(bytes, version).expect_err("refused").0
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let bytes = encode_state(&saved()).expect("bytes");
        assert_eq!(decode_state(&bytes, 3), Ok(saved()));
    }

    #[test]
    fn another_version_is_refused_by_name_whatever_its_fields() {
        let bytes = encode_state(&saved()).expect("bytes");
        assert!(refusal(&bytes, 4).contains("version"));
        let other = cbor!({ "version" => 4, "things" => 1 }).expect("a value");
        assert!(refusal(&encode_state(&other).expect("bytes"), 3).contains("version"));
    }

    #[test]
    fn what_is_left_over_missing_or_in_another_form_is_refused() {
        let bytes = encode_state(&saved()).expect("bytes");
        refusal(&bytes[..bytes.len() - 1], 3);
        assert!(refusal(&[&bytes[..], &[0]].concat(), 3).contains("form"));
        let swapped = cbor!({ "list" => [1, 2], "version" => 3 }).expect("a value");
        assert!(refusal(&encode_state(&swapped).expect("bytes"), 3).contains("form"));
        let more = cbor!({ "version" => 3, "list" => [1, 2], "more" => 0 }).expect("a value");
        refusal(&encode_state(&more).expect("bytes"), 3);
    }
}
