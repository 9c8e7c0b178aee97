//! The description of a device program that lies in `/usr/share/vfio-user`.
//!
//! The vfio-user specification asks for the file and names no schema yet. This is the one of vhost-user programs
//! (`docs/interop/vhost-user.json` in QEMU), which the conventions are modelled on.

use std::path::Path;

use serde::Serialize;

/// What a device program is: for its messages, and for its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The kind of device, as users write it.
    pub kind: &'static str,
    /// One line on what the device is.
    pub summary: &'static str,
}

#[derive(Serialize)]
struct Program<'a> {
    description: String,
    #[serde(rename = "type")]
    kind: &'a str,
    binary: &'a Path,
    tags: [&'a str; 2],
}

/// The path of a program that JSON cannot hold, since it is not UTF-8.
#[derive(Debug, thiserror::Error)]
#[error("cannot describe the program")]
pub struct DescriptionError(#[from] serde_json::Error);

impl About {
    /// The JSON text for a program that is installed as `binary`.
    ///
    /// # Errors
    ///
    /// [`DescriptionError`].
    pub fn describe(&self, binary: &Path) -> Result<String, DescriptionError> {
        let program = Program {
            description: format!("pagetrail: {}", self.summary),
            kind: self.kind,
            binary,
            tags: ["pagetrail", "live-migration"],
        };
        let mut text = serde_json::to_string_pretty(&program)?;
        text.push('\n');
        Ok(text)
    }
}
