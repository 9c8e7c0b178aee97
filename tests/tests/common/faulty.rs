//! Servers of the build with faults.

use std::path::PathBuf;
use std::process::Command;

use super::{Host, profile_folder};

/// The server's binary with the feature `fault-injection`.
fn binary() -> PathBuf {
    let path = std::env::var_os("PAGETRAIL_FAULT_BIN").map_or_else(
        || {
            let profile = profile_folder();
            let name = profile.file_name().expect("a profile has a name").to_owned();
            let target = profile.parent().expect("a profile is in a folder").to_owned();
            target.join("fault-injection").join(name).join("pagetrail")
        },
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p pagetrail --features fault-injection --target-dir target/fault-injection`, \
         or set PAGETRAIL_FAULT_BIN",
        path.display()
    );
    path
}

/// Starts a host with one `dma` device and a fault.
pub(crate) fn start(fault: &str) -> Host {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("0.sock");
    let mut command = Command::new(binary());
    command
        .arg("dma")
        .arg(format!("--socket-path={}", socket.display()))
        .arg("--workers=2")
        .arg(format!("--fault={fault}"));
    Host::run(command, vec![socket], folder)
}
