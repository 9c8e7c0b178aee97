//! The conformance test on servers that are not ours: libvfio-user's own samples, which die in some of the checks. The run survives
//! them, starts them again, and tells what they fail.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The samples' binary, built by the script that the book's table is made with.
fn sample(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the checkout");
    let output = Command::new(root.join("scripts/build-samples"))
        .arg(name)
        .output()
        .expect("the script runs");
    assert!(
        output.status.success(),
        "scripts/build-samples {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = String::from_utf8(output.stdout).expect("a path");
    PathBuf::from(path.trim())
}

/// A whole run, as JSON.
fn conform(name: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let run = format!("{} {}", sample(name).display(), socket.display());
    let output = Command::new(env!("CARGO_BIN_EXE_vfio-user-check"))
        .args(["conform", "--json=-", "--timeout=5"])
        .arg(format!("--socket-path={}", socket.display()))
        .arg(format!("--run={run}"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// The verdict of a check and its reason.
fn verdict<'a>(report: &'a serde_json::Value, name: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("there is no check {name}"));
    (
        check["verdict"].as_str().expect("a verdict"),
        check["reason"].as_str().unwrap_or_default(),
    )
}

fn assert_whole(report: &serde_json::Value) {
    let all = vfio_user_check::conform::registry::all().len();
    let checks = report["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), all);
    let not_tried: Vec<_> = checks
        .iter()
        .filter(|check| {
            check["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("is gone since"))
        })
        .collect();
    assert!(not_tried.is_empty(), "{not_tried:#?}");
}

#[test]
fn a_sample_that_ends_with_each_client_is_tried_whole() {
    let report = conform("server");
    assert_whole(&report);
    assert_eq!(
        verdict(&report, "version/a-proposal-is-answered-in-kind").0,
        "pass"
    );
    assert_eq!(verdict(&report, "dma/a-map-over-another-is-eexist").0, "fail");
    assert_eq!(verdict(&report, "logging/a-report-may-be-of-a-part").0, "fail");
    assert_eq!(verdict(&report, "written/a-page-is-reported-once").0, "skip");
}

#[test]
fn a_sample_that_aborts_is_started_again_and_the_check_says_so() {
    let report = conform("gpio-pci-idio-16");
    assert_whole(&report);
    let (verdict_of_read, reason) = verdict(&report, "stream/a-read-is-what-it-says");
    assert_eq!(verdict_of_read, "fail");
    assert!(reason.contains("SIGABRT"), "{reason}");
    assert_eq!(verdict(&report, "logging/a-report-needs-a-start").0, "pass");
}
