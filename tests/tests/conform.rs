//! The conformance test on our own servers: everything passes, and nothing is skipped but what they are known not to have.

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use common::Host;
use vfio_user_check::conform::registry::all;
use vfio_user_check::conform::{Report, Silent, Subject, Verdict, run};

/// What our servers do not have: sub-regions with a file descriptor, coalesced writes, a device without a reset or without one of
/// the optional states.
const NOT_THERE: [&str; 5] = [
    "access/several-writes-are-all-there",
    "access/several-writes-are-done-in-order",
    "region/io-fds-are-well-formed",
    "reset/it-is-refused-where-it-is-not-announced",
    "states/what-is-not-announced-is-refused",
];

/// Whether a check is of several devices.
fn is_of_several(name: &str) -> bool {
    name.starts_with("several/") || name.contains("several-devices")
}

fn conform(host: &Host) -> Report {
    let subject = Subject::new(host.sockets().to_vec(), Duration::from_secs(10));
    subject.settle().expect("the server takes clients");
    run(&subject, &all(), &mut Silent)
}

fn skipped(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = report
        .checks
        .iter()
        .filter(|check| matches!(check.verdict, Verdict::Skip(_)))
        .map(|check| check.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

fn assert_passed(report: &Report) {
    let failed: Vec<_> = report
        .checks
        .iter()
        .filter(|check| matches!(check.verdict, Verdict::Fail(_)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_server_of_one_device_passes_every_check() {
    let host = Host::start(1);
    let report = conform(&host);
    assert_passed(&report);
    let (several, other): (Vec<&str>, Vec<&str>) =
        skipped(&report).into_iter().partition(|name| is_of_several(name));
    assert_eq!(other, NOT_THERE);
    assert_eq!(
        several.len(),
        all().iter().filter(|check| is_of_several(check.name())).count()
    );
}

#[test]
fn a_server_of_several_devices_passes_every_check() {
    let host = Host::start(3);
    let report = conform(&host);
    assert_passed(&report);
    assert_eq!(skipped(&report), NOT_THERE);
}

fn check(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vfio-user-check"))
        .arg("conform")
        .args(arguments)
        .output()
        .expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_run_reports_to_people_and_to_machines() {
    let host = Host::start(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (junit, json) = (folder.path().join("junit.xml"), folder.path().join("report.json"));
    let socket = format!("--socket-path={}", host.socket().display());
    let output = check(&[
        socket.clone(),
        "--tap".to_owned(),
        "--filter=device/*".to_owned(),
        "--filter=io-fds-are-well-formed".to_owned(),
        format!("--junit={}", junit.display()),
        format!("--json={}", json.display()),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tap = stdout(&output);
    assert!(
        tap.starts_with("TAP version 14\n1..6\nok 1 - device/info-is-whole\n"),
        "{tap}"
    );
    assert!(
        tap.contains("ok 6 - region/io-fds-are-well-formed # SKIP no region"),
        "{tap}"
    );
    let junit = std::fs::read_to_string(junit).expect("a suite");
    assert!(junit.contains(r#"tests="6" failures="0" skipped="1""#), "{junit}");
    let json = std::fs::read_to_string(json).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(report["checks"][0]["verdict"], "pass");
    assert_eq!(report["checks"][5]["verdict"], "skip");

    let text = stdout(&check(&[socket, "--filter=device/info-is-whole".to_owned()]));
    assert!(text.starts_with("ok    device/info-is-whole\n"), "{text}");
    assert!(text.contains("1 passed, 0 failed, 0 skipped"), "{text}");
}

#[test]
fn exit_codes_tell_passed_failed_and_not_made_apart() {
    let host = Host::start(1);
    let code = |arguments: &[&str]| {
        let mut all = vec![format!("--socket-path={}", host.socket().display())];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        check(&all).status.code()
    };
    assert_eq!(code(&["--filter=device/it-is-a-pci-device"]), Some(0));
    assert_eq!(
        code(&["--filter=region/io-fds-are-well-formed"]),
        Some(4),
        "all skipped"
    );
    assert_eq!(code(&["--filter=no-such-check"]), Some(2));
    assert_eq!(code(&["--filter=["]), Some(2));
    let nobody = check(&[
        "--socket-path=/nonexistent/s".to_owned(),
        "--timeout=0.1".to_owned(),
    ]);
    assert_eq!(nobody.status.code(), Some(4), "no server");
}

#[test]
fn the_list_names_each_check_with_its_promise_and_its_source() {
    let output = check(&["--list".to_owned()]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for check in all() {
        assert!(
            text.contains(&format!("{}\n    {}", check.name(), check.about())),
            "{}",
            check.name()
        );
    }
    assert!(text.contains("(vfio-user.rst, VFIO_USER_DMA_MAP, Request)"));
}

#[test]
fn a_server_can_be_started_by_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let server = common::pagetrail();
    let output = check(&[
        format!("--socket-path={}", socket.display()),
        format!(
            "--run={} dma --socket-path={}",
            server.display(),
            socket.display()
        ),
        "--filter=device/*".to_owned(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
