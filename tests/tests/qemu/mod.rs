//! What the tests with real guests share: the programs that they are made with, and the way to play a scenario.
//!
//! The programs are taken from the environment, where scripts/test puts them. A test whose programs are missing fails and says what
//! makes them: a check that is skipped proves nothing.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use vfio_user_check::qemu::MemorySize;
use vfio_user_check::report::vm::{Outcome, ScenarioReport};
use vfio_user_check::scenario::{Launcher, Setup, find, run};

/// Guests are emulated: one scenario at a time is enough for the machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Plays a scenario, and fails when it does not pass.
pub(crate) fn play(name: &str) {
    let report = play_with(name, &setup());
    match &report.outcome {
        Outcome::Passed => {}
        other => panic!("{name}: {other:?}\n{}", report.log),
    }
}

/// Plays a scenario with a given set-up.
pub(crate) fn play_with(name: &str, setup: &Setup) -> ScenarioReport {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let scenario = find(name).unwrap_or_else(|| panic!("there is no scenario {name}"));
    run(scenario, setup)
}

/// Our servers, and what scripts/test has built.
pub(crate) fn setup() -> Setup {
    let guest = program("PAGETRAIL_GUEST", "scripts/build-guest");
    let pagetrail = program("PAGETRAIL_BIN", "cargo build --package pagetrail");
    Setup {
        qemu: program("PAGETRAIL_QEMU", "scripts/build-qemu"),
        stock_qemu: Some(program(
            "PAGETRAIL_QEMU_UNPATCHED",
            "scripts/build-qemu --unpatched",
        )),
        kernel: guest.join("vmlinuz"),
        initrd: guest.join("initrd"),
        memory: MemorySize::LEAST,
        source: launcher(&pagetrail, 2, &[]),
        dest: launcher(&pagetrail, 2, &[]),
        different: Some(launcher(&pagetrail, 3, &[])),
        unmigratable: Some(faulty("no-migration")),
    }
}

/// A server with faults, which loses what it is told to lose.
pub(crate) fn faulty(fault: &str) -> Launcher {
    let binary = program(
        "PAGETRAIL_FAULT_BIN",
        "cargo build --package pagetrail --features fault-injection --target-dir target/fault-injection",
    );
    launcher(&binary, 2, &[format!("--fault={fault}")])
}

fn program(variable: &str, made_by: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{variable} is not set: it is the path that `{made_by}` makes"));
    assert!(
        path.exists(),
        "{variable} is {}, which does not exist: `{made_by}` makes it",
        path.display()
    );
    path
}

/// Servers of a `pagetrail` binary, with so many workers for each device.
fn launcher(binary: &Path, workers: u32, arguments: &[String]) -> Launcher {
    let (binary, arguments) = (binary.to_owned(), arguments.to_vec());
    Arc::new(move |sockets, folder| {
        let mut command = Command::new(&binary);
        command.arg("--log=info");
        match sockets {
            [socket] => {
                command
                    .arg("dma")
                    .arg(format!("--socket-path={}", socket.display()))
                    .arg(format!("--workers={workers}"))
                    .args(&arguments);
            }
            _ if !arguments.is_empty() => return Ok(None),
            [first, ..] => {
                let name = first.file_name().unwrap_or_default().to_string_lossy();
                let config = folder.join(format!("{name}.toml"));
                std::fs::write(&config, configuration(sockets, workers))?;
                command.arg("serve").arg(config);
            }
            [] => return Ok(None),
        }
        Ok(Some(command))
    })
}

fn configuration(sockets: &[PathBuf], workers: u32) -> String {
    let devices = sockets.iter().map(|socket| {
        let path = socket.display();
        format!("[[vm.device]]\nkind = \"dma\"\nsocket-path = \"{path}\"\nworkers = {workers}\n")
    });
    format!("[[vm]]\nname = \"vm0\"\n{}", devices.collect::<String>())
}
