//! Negative controls of the conformance test: for each check a server that breaks exactly its promise, and that the check must not
//! pass. The same server without the fault passes it.

mod common;
mod faults;
mod proxy;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::Host;
use faults::{Control, put};
use proxy::{Proxy, Rule, always};
use vfio_user_check::conform::{Check, Report, Silent, Subject, Verdict, registry, run};
use vfio_user_check::wire::Command;

/// How long a sound server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a faulty one may take where being late is a failure like any other: some faults are seen by waiting.
const IMPATIENCE: Duration = Duration::from_millis(700);

/// How long a faulty one may take where some checks must pass.
const MODERATION: Duration = Duration::from_secs(4);

/// Runs checks on the host behind proxies with these rules.
fn conform(host: &Host, rules: Vec<Rule>, checks: &[Check], timeout: Duration) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = Arc::new(rules);
    let proxies: Vec<Proxy> = host
        .sockets()
        .iter()
        .enumerate()
        .map(|(index, socket)| {
            Proxy::start(&folder.path().join(index.to_string()), socket, Arc::clone(&rules))
        })
        .collect();
    let sockets: Vec<PathBuf> = proxies.iter().map(|proxy| proxy.path().to_owned()).collect();
    // A busy machine may be late, and a server that is late here is no finding.
    let sound = Subject::new(sockets.clone(), PATIENCE);
    sound.settle().expect("the server takes clients");
    run(&Subject::new(sockets, timeout), checks, &mut Silent)
}

fn only(name: &str) -> Vec<Check> {
    some(&[name])
}

fn some(names: &[&str]) -> Vec<Check> {
    let mut checks = registry::all();
    checks.retain(|check| names.contains(&check.name()));
    checks
}

fn verdict(host: &Host, control: &Control, rules: Vec<Rule>, timeout: Duration) -> Verdict {
    let report = conform(host, rules, &only(&control.check), timeout);
    report.checks[0].verdict.clone()
}

#[test]
fn every_check_has_its_control() {
    let checks: BTreeSet<String> = registry::all()
        .iter()
        .map(|check| check.name().to_owned())
        .collect();
    let controls: BTreeSet<String> = faults::all().into_iter().map(|control| control.check).collect();
    assert_eq!(checks, controls);
}

#[test]
fn a_proxy_without_a_fault_passes_every_check() {
    let host = Host::start(2);
    let needs_more: Vec<String> = faults::all()
        .into_iter()
        .filter(|control| control.present.is_some())
        .map(|control| control.check)
        .collect();
    for check in conform(&host, Vec::new(), &registry::all(), PATIENCE).checks {
        let skipped = matches!(check.verdict, Verdict::Skip(_));
        assert!(
            check.verdict == Verdict::Pass || (skipped && needs_more.contains(&check.name)),
            "{check:#?}"
        );
    }
    for control in faults::all() {
        let Some(present) = &control.present else { continue };
        let verdict = verdict(&host, &control, present(), PATIENCE);
        assert_eq!(verdict, Verdict::Pass, "{}", control.check);
    }
}

#[test]
fn every_check_fails_on_a_server_that_breaks_its_promise() {
    let host = Host::start(2);
    let mut passed = Vec::new();
    for control in faults::all() {
        let mut rules = (control.fault)();
        rules.extend(
            control
                .present
                .as_ref()
                .map(|present| present())
                .unwrap_or_default(),
        );
        match verdict(&host, &control, rules, IMPATIENCE) {
            Verdict::Fail(reason) => println!("{}: {reason}", control.check),
            other => passed.push(format!("{}: {other:?}", control.check)),
        }
    }
    assert!(
        passed.is_empty(),
        "these checks did not fail:\n{}",
        passed.join("\n")
    );
}

/// Three checks in the order in which they are tried.
const THREE: [&str; 3] = [
    "device/info-is-whole",
    "region/config-space-is-there",
    "irq/every-index-is-described",
];

#[test]
fn a_server_that_hangs_fails_one_check_and_the_run_goes_on() {
    let host = Host::start(1);
    let hangs = Rule::swallows(Command::DeviceGetRegionInfo, |message| {
        message.header.id == 0xc0de
    });
    let report = conform(&host, vec![hangs], &some(&THREE), MODERATION);
    assert_eq!(report.checks[0].verdict, Verdict::Pass);
    let Verdict::Fail(reason) = &report.checks[1].verdict else {
        panic!("{report:#?}");
    };
    assert!(reason.contains("neither answered nor closed"), "{reason}");
    assert_eq!(report.checks[2].verdict, Verdict::Pass);
}

#[test]
fn a_server_that_is_gone_fails_the_check_that_it_went_in_and_the_rest_is_skipped() {
    let host = Host::start(1);
    // One to see that it is there, the check, and one to see that it is there still.
    let report = conform(&host, vec![Rule::Clients(2)], &some(&THREE), MODERATION);
    let Verdict::Fail(reason) = &report.checks[0].verdict else {
        panic!("{report:#?}");
    };
    assert!(reason.contains("takes no client"), "{reason}");
    for check in &report.checks[1..] {
        let Verdict::Skip(reason) = &check.verdict else {
            panic!("{check:#?}");
        };
        assert!(reason.contains("gone since device/info-is-whole"), "{reason}");
    }
}

/// Changes every reply to a command by overwriting 32-bit fields with the largest number.
fn boasts(command: Command, fields: &'static [usize]) -> Rule {
    Rule::edits(command, always, move |_, reply| {
        for field in fields {
            put(reply, *field, &[0xff; 4]);
        }
    })
}

#[test]
fn a_server_that_boasts_neither_stops_the_run_nor_brings_it_down() {
    let host = Host::start(2);
    let limits = br#"{"capabilities":{"max_msg_fds":4294967295,"max_data_xfer_size":18446744073709551615,"max_dma_maps":18446744073709551615}}"#;
    for rules in [
        vec![boasts(Command::DeviceGetInfo, &[8, 12])],
        vec![boasts(Command::DeviceGetRegionInfo, &[0, 12, 16, 20])],
        vec![boasts(Command::DeviceGetIrqInfo, &[0, 12])],
        vec![boasts(Command::MigDataRead, &[0, 4])],
        vec![boasts(Command::DeviceFeature, &[0, 8, 16, 24])],
        vec![Rule::edits(Command::Version, always, |_, reply| {
            reply.payload = [&[0, 0, 1, 0], limits.as_slice(), &[0]].concat();
        })],
    ] {
        let report = conform(&host, rules, &registry::all(), MODERATION);
        assert_eq!(report.checks.len(), registry::all().len());
        assert!(report.failed() > 0, "{report:#?}");
    }
}
