//! The description of a device program that lies in `/usr/share/vfio-user`.
//!
//! The vfio-user specification asks for the file and names no schema yet. This is the one of vhost-user programs
//! (`docs/interop/vhost-user.json` in QEMU), which the conventions are modelled on.

use std::path::Path;

use serde::Serialize;

use super::models::Kind;

#[derive(Serialize)]
struct Program<'a> {
    description: String,
    #[serde(rename = "type")]
    kind: &'a str,
    binary: &'a Path,
    tags: [&'a str; 2],
}

/// The JSON text for a device whose program is installed as `binary`.
///
/// # Errors
///
/// When `binary` is not UTF-8, which JSON cannot hold.
pub(super) fn description(kind: Kind, binary: &Path) -> anyhow::Result<String> {
    let program = Program {
        description: format!("pagetrail: {}", kind.summary()),
        kind: kind.name(),
        binary,
        tags: ["pagetrail", "live-migration"],
    };
    let mut text = serde_json::to_string_pretty(&program)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_description_is_what_the_program_prints() {
        let installed = include_str!("../../dist/50-pagetrail-dma.json");
        let printed = description(Kind::Dma, Path::new("/usr/bin/pagetrail-dma")).expect("printable");
        assert_eq!(printed, installed);
    }
}
