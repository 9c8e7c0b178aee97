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
    let help = check(&["migrate", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
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
