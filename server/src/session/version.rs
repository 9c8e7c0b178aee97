//! VERSION: what is announced, and refusing a client.

use rustix::io::Errno;
use serde_json::{Map, Value};

use crate::device::Bar;
use crate::vfu::{Answer, Handler, Message};

/// Capabilities that are announced to a client that proposed them (`docs/src/protocol.md`).
const EXTENSIONS: [&str; 2] = ["mig_data_size", "mig_precopy_info"];

/// The extensions that the client proposed, as a JSON object.
pub(super) fn announced(client: Option<&str>) -> Option<String> {
    let client: Value = serde_json::from_str(client?).ok()?;
    let proposed = client.get("capabilities")?;
    let announced: Map<String, Value> = EXTENSIONS
        .iter()
        .filter(|name| proposed.get(name) == Some(&Value::Bool(true)))
        .map(|name| ((*name).to_owned(), Value::Bool(true)))
        .collect();
    Some(Value::Object(announced).to_string())
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

    #[test]
    fn only_what_the_client_proposed_is_announced() {
        assert_eq!(announced(None), None);
        assert_eq!(announced(Some("{}")), None);
        assert_eq!(
            announced(Some(r#"{"capabilities":{"max_msg_fds":8}}"#)).as_deref(),
            Some("{}")
        );
        let one = announced(Some(
            r#"{"capabilities":{"mig_data_size":true,"mig_precopy_info":false}}"#,
        ));
        assert_eq!(one.as_deref(), Some(r#"{"mig_data_size":true}"#));
    }
}
