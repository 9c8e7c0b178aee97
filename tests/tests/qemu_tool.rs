//! `vfio-user-check vm`: what it says of scenarios that hold, and of servers with which they do not.

mod common;
mod qemu;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs one scenario with a server's command line on both sides, and has all reports written to a folder.
fn vm(scenario: &str, server: &str, folder: &Path) -> Output {
    let setup = qemu::setup();
    let file = |name: &str| folder.join(name).display().to_string();
    Command::new(env!("CARGO_BIN_EXE_vfio-user-check"))
        .arg("vm")
        .arg(format!("--qemu={}", setup.qemu.display()))
        .arg(format!("--kernel={}", setup.kernel.display()))
        .arg(format!("--initrd={}", setup.initrd.display()))
        .arg(format!("--source-server={server}"))
        .arg(format!("--dest-server={server}"))
        .arg(format!("--scenario={scenario}"))
        .arg(format!("--html={}", file("report.html")))
        .arg(format!("--json={}", file("report.json")))
        .arg(format!("--junit={}", file("report.xml")))
        .output()
        .expect("it runs")
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).expect("a report")
}

fn pagetrail() -> String {
    format!("{} dma --socket-path={{socket}}", common::pagetrail().display())
}

#[test]
fn a_migration_is_reported_to_people_and_to_machines() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = vm("flat-out", &pagetrail(), folder.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("PASS: 1 passed"), "{text}");

    let report: Value = serde_json::from_str(&read(folder.path(), "report.json")).expect("it is JSON");
    assert!(
        report["run"]["qemu"]
            .as_str()
            .is_some_and(|qemu| qemu.starts_with("QEMU"))
    );
    let migration = &report["scenarios"][0]["migrations"][0];
    assert_eq!(migration["ending"]["ending"], "completed");
    let passes = migration["passes"].as_array().expect("passes");
    assert!(passes.len() >= 3, "{passes:?}");
    assert_eq!(passes[0]["kind"], "bulk");
    assert_eq!(passes[passes.len() - 1]["kind"], "final");
    assert!(migration["device-bytes"].as_u64() > Some(0), "{migration}");
    let columns = &report["scenarios"][0]["heat-map"]["columns"];
    assert!(columns.as_array().is_some_and(|columns| !columns.is_empty()));

    let page = read(folder.path(), "report.html");
    for chart in ["Pages per pass", "Throughput", "Memory that changed", "Downtime"] {
        assert!(page.contains(chart), "{chart}");
    }
    assert!(read(folder.path(), "report.xml").contains(r#"failures="0""#));
}

#[test]
fn a_server_that_does_not_listen_fails_the_scenario_and_its_words_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = vm(
        "idle",
        "sh -c 'echo I am no server >&2; exit 3' {socket}",
        folder.path(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL: 0 passed, 1 failed"));
    assert!(read(folder.path(), "report.html").contains("I am no server"));
    assert!(read(folder.path(), "report.xml").contains("I am no server"));
}

#[test]
fn a_scenario_that_lacks_a_server_is_skipped_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = vm("unmigratable", &pagetrail(), folder.path());
    assert_eq!(output.status.code(), Some(4));
    assert!(read(folder.path(), "report.xml").contains("<skipped message="));
}
