//! The device as its client sees it: real `digest` processes, driven, migrated and misled over the wire by `vfio-user-check`.

mod common;

use std::process::Command;

use common::{BLOCKS, Host, SOURCE, TABLE, begin, memory, read, wait_for_end, wrong_entries};
use vfio_user_check::client::Error;
use vfio_user_check::migrate::{
    MigrateError, Migration, Options, Outcome, Silent, read_stream, write_stream,
};
use vfio_user_check::vmm::Vm;
use vfio_user_check::wire::MigState;

#[test]
fn a_driver_gets_its_table_and_one_interrupt() {
    let host = Host::start(&[]);
    let mut vm = host.vm(&memory());
    for job in 1..=3 {
        begin(&mut vm);
        assert_eq!(wait_for_end(&mut vm), 1, "one signal for one end");
        assert_eq!(wrong_entries(&vm, job), [0; 0]);
    }
}

/// Migrates a VM, with a job in each pass and one that is under way at the switch-over.
fn migrate(source: &mut Vm, dest: &mut Vm) -> Result<Outcome, MigrateError> {
    let mut silent = Silent;
    let mut migration = Migration::start(source, dest, Options::default(), &mut silent)?;
    for _ in 0..4 {
        begin(migration.source());
        migration.pass()?;
        wait_for_end(migration.source());
    }
    begin(migration.source());
    migration.switch_over()
}

#[test]
fn a_job_migrates_in_mid_flight_and_no_page_is_lost() {
    let was_in_flight = |_| {
        let hosts = [Host::start(&[]), Host::start(&[])];
        let mut source = hosts[0].vm(&memory());
        let mut dest = hosts[1].stopped_vm(&source.memory().same_layout().expect("memory"));
        let outcome = migrate(&mut source, &mut dest).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(outcome.passed(), "{}", vfio_user_check::report::text(&outcome));
        assert!(outcome.dma_logging && outcome.pre_copy && outcome.p2p);
        wait_for_end(&mut dest);
        assert_eq!(wrong_entries(&dest, 5), [0; 0]);
        read(&mut source, common::reg::DONE) < BLOCKS
    };
    assert!(
        (0..10).any(was_in_flight),
        "one of ten is caught in the middle of a job"
    );
}

/// The state of a device that is stopped in a job, and its VM.
fn saved(host: &Host) -> (Vm, Vec<u8>) {
    let mut vm = host.vm(&memory());
    begin(&mut vm);
    let device = &mut vm.devices()[0];
    device
        .client()
        .set_mig_state(MigState::StopCopy)
        .expect("it stops");
    let stream = read_stream(device, 1 << 20).expect("a stream");
    (vm, stream)
}

/// Has a device take a stream after a reset.
fn offer(vm: &mut Vm, stream: &[u8]) -> Result<(), Error> {
    let device = &mut vm.devices()[0];
    device.client().device_reset()?;
    device.client().set_mig_state(MigState::Resuming)?;
    write_stream(device, stream, 1 << 20)?;
    device.client().set_mig_state(MigState::Running)
}

#[test]
fn a_damaged_state_is_refused_and_the_source_goes_on() {
    let (source, dest_host) = (Host::start(&[]), Host::start(&[]));
    let (mut vm, stream) = saved(&source);
    let mut dest = dest_host.stopped_vm(&vm.memory().same_layout().expect("memory"));
    for at in 0..stream.len() {
        let mut damaged = stream.clone();
        damaged[at] ^= 1;
        let refused = offer(&mut dest, &damaged).expect_err("refused");
        assert!(refused.errno().is_some(), "byte {at}: {refused}");
    }
    offer(&mut dest, &stream).expect("the state as it was");
    let device = &mut vm.devices()[0];
    device
        .client()
        .set_mig_state(MigState::Running)
        .expect("it runs on");
    wait_for_end(&mut vm);
    assert_eq!(wrong_entries(&vm, 1), [0; 0]);
}

#[test]
fn a_destination_with_other_parameters_refuses_the_state_and_says_why() {
    let (source, dest) = (Host::start(&[]), Host::start(&["--max-blocks=99999"]));
    let (_vm, stream) = saved(&source);
    offer(&mut dest.stopped_vm(&memory()), &stream).expect_err("refused");
    let log = dest.log();
    assert!(
        log.contains("max-blocks: 99999 here, 65536 in the stream"),
        "{log}"
    );
}

#[test]
fn sigterm_ends_the_program_with_success_and_removes_its_socket() {
    let host = Host::start(&[]);
    let mut vm = host.vm(&memory());
    begin(&mut vm);
    let socket = host.socket().to_owned();
    assert!(socket.exists());
    let status = host.stop();
    assert!(status.success(), "{status}");
    assert!(!socket.exists());
}

#[test]
fn the_program_describes_itself() {
    let output = Command::new(common::digest())
        .arg("--describe")
        .output()
        .expect("it starts");
    assert!(output.status.success());
    let description: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(description["type"], "digest");
    assert_eq!(description["binary"], common::digest().to_str().expect("text"));
}

/// The control of the migrations above: a page of the table that is not marked must be missed, and named.
#[test]
fn a_page_that_is_not_marked_is_caught() {
    let page = TABLE + 3 * 4096;
    let (faulty, dest_host) = (
        Host::start_faulty(&format!("suppress-page={page:#x}")),
        Host::start(&[]),
    );
    let mut source = faulty.vm(&memory());
    let mut dest = dest_host.stopped_vm(&source.memory().same_layout().expect("memory"));
    let outcome = migrate(&mut source, &mut dest).unwrap_or_else(|error| panic!("{error:?}"));
    let lost: Vec<u64> = outcome.verdict.lost.iter().map(|lost| lost.iova).collect();
    assert_eq!(lost, [page], "{:#?}", outcome.verdict);
}

/// The control of the check of the table.
#[test]
fn an_entry_that_was_not_written_is_found() {
    let host = Host::start(&[]);
    let mut vm = host.vm(&memory());
    begin(&mut vm);
    wait_for_end(&mut vm);
    vm.memory().write(TABLE + 8 * 77, &[0; 8]).expect("memory");
    assert_eq!(wrong_entries(&vm, 1), [77]);
    vm.memory().write(SOURCE, &[1]).expect("memory");
    assert_eq!(wrong_entries(&vm, 1), [0, 77]);
}
