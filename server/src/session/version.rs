//! VERSION: what is announced, and refusing a client.

use rustix::io::Errno;
use serde_json::{Map, Value};

use crate::device::Bar;
use crate::vfu::{Answer, Handler, Message};

/// Capabilities that are announced to a client that proposed them (`docs/src/protocol.md`).
const EXTENSIONS: [&str; 2] = ["mig_data_size", "mig_precopy_info"];

/// Capabilities that libvfio-user announces by itself.
const OF_THE_LIBRARY: [&str; 2] = ["max_msg_fds", "max_data_xfer_size"];

/// What is to be announced besides what the library does, as a JSON object: the extensions that the client proposed, and null for
/// what it did not propose and must not get. A client without a document has proposed nothing.
pub(super) fn announced(client: Option<&str>) -> String {
    let client: Value = client
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let proposed = &client["capabilities"];
    let extensions = EXTENSIONS
        .iter()
        .filter(|name| proposed[**name] == true)
        .map(|name| ((*name).to_owned(), Value::Bool(true)));
    let unasked = OF_THE_LIBRARY
        .iter()
        .filter(|name| proposed.get(**name).is_none())
        .map(|name| ((*name).to_owned(), Value::Null));
    Value::Object(extensions.chain(unasked).collect::<Map<String, Value>>()).to_string()
}

/// Refuses a client at its VERSION.
pub(super) struct Refusal(pub(super) Errno);

impl Handler for Refusal {
    fn version(&self, _client: Option<&str>) -> Result<Option<String>, Errno> {
        Err(self.0)
    }

    fn message(&self, _message: &mut Message<'_>) -> Result<Answer, Errno> {
        Err(self.0)
    }

    fn read_bar(&self, _bar: Bar, _offset: u64, _data: &mut [u8]) -> Result<(), Errno> {
        Err(self.0)
    }

    fn write_bar(&self, _bar: Bar, _offset: u64, _data: &[u8]) -> Result<(), Errno> {
        Err(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::announced;

    use serde_json::{Value, json};

    fn answer(client: Option<&str>) -> Value {
        serde_json::from_str(&announced(client)).expect("it is JSON")
    }

    #[test]
    fn extensions_are_announced_to_who_proposed_them() {
        let both = r#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1,"mig_data_size":true,"mig_precopy_info":false}}"#;
        assert_eq!(answer(Some(both)), json!({"mig_data_size": true}));
    }

    #[test]
    fn what_the_client_did_not_propose_is_taken_out() {
        let nothing = json!({"max_msg_fds": null, "max_data_xfer_size": null});
        for client in [None, Some("{}"), Some(r#"{"capabilities":{}}"#), Some("[]")] {
            assert_eq!(answer(client), nothing, "{client:?}");
        }
        let fds = Some(r#"{"capabilities":{"max_msg_fds":8}}"#);
        assert_eq!(answer(fds), json!({"max_data_xfer_size": null}));
    }
}
