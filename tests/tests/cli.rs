//! The command line of the check itself: exit codes, errors that say what to do, output for machines.

mod common;

use std::process::{Command, Output};

use common::Host;

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-user-check"))
        .args(arguments)
        .output()
        .expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["migrate"][..],
        &["migrate", "--source=a"],
        &["nonsense"],
        &["migrate", "--source=a", "--dest=b", "--page-size=3"],
    ] {
        assert_eq!(check(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn devices_without_a_partner_are_a_usage_error() {
    let output = check(&["migrate", "--source=a", "--source=b", "--dest=c"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("as many --dest as --source"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_server_that_is_not_there_is_an_error_that_says_what_to_do() {
    let output = check(&[
        "migrate",
        "--source=/nonexistent/a",
        "--dest=/nonexistent/b",
        "--memory=8M",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--socket-path"), "{}", stderr(&output));
}

#[test]
fn help_has_examples_and_completions_are_printed() {
    for (command, words) in [
        ("migrate", "Examples:"),
        ("render", "Examples:"),
        ("vm", "A complete example:"),
    ] {
        let help = check(&[command, "--help"]);
        assert!(String::from_utf8_lossy(&help.stdout).contains(words), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = check(&["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("vfio-user-check"));
    }
}

#[test]
fn a_migration_reports_to_people_and_to_machines() {
    let (source, dest) = (Host::start(1), Host::start(1));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let output = check(&[
        "migrate",
        "--memory=32M",
        "--passes=3",
        &format!("--source={}", source.socket().display()),
        &format!("--dest={}", dest.socket().display()),
        &format!("--svg={}", file("passes.svg")),
        &format!("--junit={}", file("junit.xml")),
        "--json=-",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(
        report["passes"]
            .as_array()
            .is_some_and(|passes| passes.len() >= 3)
    );
    assert_eq!(report["verdict"]["lost"].as_array().map(Vec::len), Some(0));
    assert!(
        std::fs::read_to_string(file("passes.svg"))
            .expect("a picture")
            .starts_with("<svg")
    );
    assert!(
        std::fs::read_to_string(file("junit.xml"))
            .expect("a suite")
            .contains("failures=\"0\"")
    );
}

#[test]
fn the_server_ends_on_sigterm_with_success() {
    let host = Host::start(1);
    let client = host.client();
    let status = host.stop();
    assert!(status.success(), "{status}");
    drop(client);
}

#[test]
fn the_scenarios_are_listed_without_anything_else_given() {
    let output = check(&["vm", "--list"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(list.lines().any(|line| line.starts_with("flat-out ")), "{list}");
    let one = check(&["vm", "--list", "--scenario=flat-*"]);
    assert_eq!(String::from_utf8_lossy(&one.stdout).lines().count(), 1);
    let none = check(&["vm", "--list", "--scenario=nonsense"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("--list"), "{}", stderr(&none));
}

#[test]
fn a_vm_without_its_programs_is_a_usage_error_that_names_them() {
    let output = check(&["vm"]);
    assert_eq!(output.status.code(), Some(2));
    for option in [
        "--qemu",
        "--kernel",
        "--initrd",
        "--source-server",
        "--dest-server",
    ] {
        assert!(stderr(&output).contains(option), "{option}: {}", stderr(&output));
    }
    let programs = [
        "vm",
        "--qemu=/nonexistent/qemu",
        "--kernel=/dev/null",
        "--initrd=/dev/null",
    ];
    let servers = ["--source-server=s {socket}", "--dest-server=s {socket}"];
    let output = check(&[&programs[..], &servers[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("/nonexistent/qemu"),
        "{}",
        stderr(&output)
    );
    let output = check(&[&programs[..], &["--source-server=s", servers[1]]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("{socket}"), "{}", stderr(&output));
}

/// A report as `vm --json` writes it, with one scenario.
fn saved_report(outcome: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "run": {"qemu": "QEMU <11>"},
        "scenarios": [{
            "name": "idle", "description": "It rests.", "outcome": outcome, "seconds": 1.0,
            "phases": [], "migrations": [], "heat-map": null, "log": "",
        }],
    })
}

#[test]
fn a_saved_report_becomes_a_page_and_ends_like_its_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let outcomes = [
        (serde_json::json!({"outcome": "passed"}), 0),
        (
            serde_json::json!({"outcome": "failed", "message": "a page is lost"}),
            1,
        ),
        (
            serde_json::json!({"outcome": "skipped", "message": "no server"}),
            4,
        ),
    ];
    for (outcome, code) in outcomes {
        let report = saved_report(&outcome).to_string();
        std::fs::write(file("report.json"), report).expect("a report");
        let output = check(&[
            "render",
            &file("report.json"),
            &format!("--html={}", file("page.html")),
            &format!("--junit={}", file("junit.xml")),
        ]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let page = std::fs::read_to_string(file("page.html")).expect("a page");
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("QEMU &lt;11&gt;"));
        let message = outcome["message"].as_str().unwrap_or_default();
        assert!(page.contains(message));
        let suite = std::fs::read_to_string(file("junit.xml")).expect("a suite");
        assert!(suite.contains(message));
    }
}

#[test]
fn what_is_no_report_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.json");
    std::fs::write(&path, "{\"run\": []}").expect("a file");
    let output = check(&["render", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("other.json"), "{}", stderr(&output));
}
