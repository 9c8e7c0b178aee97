//! The JSON document of the handshake.

use serde::{Deserialize, Serialize};

use super::consts;

/// The document that follows [`super::VersionHeader`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// What the sender can do.
    pub capabilities: Capabilities,
}

/// What a peer can do. Members that this crate does not know are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Most file descriptors the sender takes in one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msg_fds: Option<u32>,
    /// Most bytes of a data transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_data_xfer_size: Option<u64>,
    /// Most DMA mappings at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dma_maps: Option<u64>,
    /// Page sizes of DMA mappings, or-ed together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsizes: Option<u64>,
    /// `REGION_WRITE_MULTI` is supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_multiple: Option<bool>,
    /// Extension: feature 9 is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_data_size: Option<bool>,
    /// Extension: command 19 is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig_precopy_info: Option<bool>,
}

impl Capabilities {
    /// What this client proposes: all that it knows of.
    pub fn proposal() -> Self {
        Self {
            max_msg_fds: Some(8),
            max_data_xfer_size: Some(consts::DEFAULT_MAX_DATA_XFER_SIZE),
            mig_data_size: Some(true),
            mig_precopy_info: Some(true),
            ..Self::default()
        }
    }

    /// Most file descriptors the peer takes in one message.
    pub fn max_msg_fds(&self) -> usize {
        self.max_msg_fds.unwrap_or(consts::DEFAULT_MAX_MSG_FDS).max(1) as usize
    }

    /// Most bytes the peer transfers at once.
    pub fn max_data_xfer_size(&self) -> usize {
        let size = self
            .max_data_xfer_size
            .unwrap_or(consts::DEFAULT_MAX_DATA_XFER_SIZE);
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Version};

    #[test]
    fn absent_members_have_the_specification_s_defaults() {
        let version: Version = serde_json::from_str("{}").expect("an empty document");
        assert_eq!(version.capabilities.max_msg_fds(), 1);
        assert_eq!(version.capabilities.max_data_xfer_size(), 1 << 20);
    }

    #[test]
    fn unknown_members_are_ignored() {
        let text = r#"{"capabilities":{"max_msg_fds":8,"migration":{"pgsize":4096},"twin_socket":{"supported":false}}}"#;
        let version: Version = serde_json::from_str(text).expect("a document with other members");
        assert_eq!(version.capabilities.max_msg_fds(), 8);
    }

    #[test]
    fn members_not_proposed_are_not_written() {
        let text = serde_json::to_string(&Capabilities::default()).expect("it serialises");
        assert_eq!(text, "{}");
    }
}
