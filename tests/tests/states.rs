//! The migration state machine: every arc of the kernel's `vfio_mig_get_next_state()`, and a reset in every state.

mod common;

use common::{Host, dma, generator};
use vfio_user_check::client::{Client, Error};
use vfio_user_check::migrate::read_stream;
use vfio_user_check::vmm::{Device, Vm};
use vfio_user_check::wire::{MigState, consts};

use MigState::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};

/// States that a client can ask for.
const STATES: [MigState; 7] = [Stop, Running, StopCopy, Resuming, RunningP2p, PreCopy, PreCopyP2p];

/// Brings a device that runs to `state`; one that loads gets its own state, complete.
fn bring(device: &mut Device, state: MigState) {
    if state == Resuming {
        device.client().set_mig_state(StopCopy).expect("it stops");
        let stream = read_stream(device, 1 << 20).expect("a stream");
        device.client().set_mig_state(Resuming).expect("it resumes");
        device.client().mig_data_write(&stream).expect("it loads");
    } else {
        device.client().set_mig_state(state).expect("it gets there");
    }
    assert_eq!(device.client().mig_state().expect("a state"), state);
}

/// Whether the kernel's table has a way.
fn has_way(from: MigState, to: MigState) -> bool {
    !matches!((from, to), (StopCopy, PreCopy | PreCopyP2p))
}

fn assert_state(client: &mut Client, state: MigState) {
    assert_eq!(client.mig_state().expect("a state"), state);
}

fn running(host: &Host) -> Vm {
    let mut vm = host.vm(&common::memory());
    dma(&mut vm).start_generator(&generator(256)).expect("it starts");
    vm
}

#[test]
fn all_states_are_offered() {
    let flags = Host::start(1).client().migration_flags().expect("flags");
    assert_eq!(
        flags,
        consts::MIGRATION_STOP_COPY | consts::MIGRATION_P2P | consts::MIGRATION_PRE_COPY
    );
}

#[test]
fn every_arc_of_the_table_is_there_and_no_other() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let device = &mut vm.devices()[0];
    for from in STATES {
        for to in STATES {
            device.client().device_reset().expect("a reset");
            bring(device, from);
            match device.client().set_mig_state(to) {
                Ok(()) => {
                    assert!(has_way(from, to), "{from} to {to} must be refused");
                    assert_state(device.client(), to);
                }
                Err(Error::Server { errno, .. }) => {
                    assert!(!has_way(from, to), "{from} to {to} must work");
                    assert_eq!(errno, consts::EINVAL, "{from} to {to}");
                    assert_state(device.client(), from);
                }
                Err(error) => panic!("{from} to {to}: {error}"),
            }
        }
    }
}

#[test]
fn states_that_do_not_exist_are_refused() {
    let host = Host::start(1);
    let mut client = host.client();
    for number in [0, 8, 9, 0x100, u32::MAX] {
        let error = client
            .set_mig_state_raw(number)
            .expect_err("there is no such state");
        assert_eq!(error.errno(), Some(consts::EINVAL), "{number}");
        assert_state(&mut client, Running);
    }
}

#[test]
fn the_generator_runs_in_the_states_that_run_and_in_no_other() {
    let host = Host::start(1);
    let mut vm = running(&host);
    for state in [Running, PreCopy, PreCopyP2p, RunningP2p, Stop, StopCopy] {
        vm.devices()[0]
            .client()
            .set_mig_state(state)
            .expect("it gets there");
        let before = dma(&mut vm).positions().expect("positions");
        std::thread::sleep(std::time::Duration::from_millis(30));
        let after = dma(&mut vm).positions().expect("positions");
        let stopped = matches!(state, Stop | StopCopy);
        // In the P2P states a device may go on with what it began or pause; it must not once it is stopped.
        if stopped {
            assert_eq!(before, after, "it writes in {state}");
        }
        if matches!(state, Running | PreCopy) {
            assert!(
                after.iter().sum::<u64>() > before.iter().sum(),
                "it does not write in {state}"
            );
        }
        vm.devices()[0]
            .client()
            .set_mig_state(Running)
            .expect("it runs again");
    }
}

#[test]
fn a_reset_in_every_state_makes_a_device_that_runs() {
    let host = Host::start(1);
    let mut vm = running(&host);
    for state in STATES {
        bring(&mut vm.devices()[0], state);
        vm.devices()[0].client().device_reset().expect("a reset");
        assert_state(vm.devices()[0].client(), Running);
        vm.devices()[0].enable().expect("it can be enabled");
        let mut driver = dma(&mut vm);
        assert_eq!(driver.positions().expect("positions").iter().sum::<u64>(), 0);
        driver.start_generator(&generator(64)).expect("it starts again");
        driver
            .await_progress(10, std::time::Duration::from_secs(5))
            .expect("it writes again");
    }
}

#[test]
fn a_reset_keeps_mappings_and_the_log() {
    let host = Host::start(1);
    let mut vm = running(&host);
    vm.devices()[0]
        .client()
        .logging_start(4096, &[])
        .expect("logging starts");
    dma(&mut vm)
        .await_progress(500, std::time::Duration::from_secs(5))
        .expect("it writes");
    vm.devices()[0].client().device_reset().expect("a reset");
    let report = vm.devices()[0]
        .client()
        .logging_report(16 << 20, 256 * 4096, 4096)
        .expect("a report");
    assert!(report.count() > 0, "the bits are gone");
    vm.devices()[0].enable().expect("it can be enabled");
    dma(&mut vm)
        .start_generator(&generator(256))
        .expect("the memory is still there");
    dma(&mut vm)
        .await_progress(500, std::time::Duration::from_secs(5))
        .expect("it writes");
    let report = vm.devices()[0]
        .client()
        .logging_report(16 << 20, 256 * 4096, 4096)
        .expect("a report");
    assert!(report.count() > 0, "logging has ended");
}

#[test]
fn a_paused_device_can_be_given_memory_and_interrupts() {
    let host = Host::start(1);
    let mut vm = running(&host);
    for state in [Stop, StopCopy] {
        bring(&mut vm.devices()[0], state);
        let region = vm.memory().find(1 << 20, 1).expect("a region");
        let device = &mut vm.devices()[0];
        device
            .client()
            .dma_unmap(region.iova(), region.size())
            .expect("an unmap");
        region.map_into(device.client()).expect("a map");
        device
            .connect_interrupts(vfio_user_check::vmm::IrqKind::Msix)
            .expect("interrupts");
        device.client().set_mig_state(Running).expect("it runs");
        dma(&mut vm)
            .await_progress(10, std::time::Duration::from_secs(5))
            .expect("it writes");
    }
}

#[test]
fn pre_copy_info_is_answered_in_pre_copy_alone() {
    let host = Host::start(1);
    let mut vm = running(&host);
    for state in [Running, PreCopy, PreCopyP2p, StopCopy] {
        let client = vm.devices()[0].client();
        client.set_mig_state(state).expect("it gets there");
        match (state, client.precopy_info()) {
            (PreCopy | PreCopyP2p, Ok(info)) => assert_eq!((info.argsz, info.flags), (24, 0)),
            (PreCopy | PreCopyP2p, Err(error)) => panic!("{state}: {error}"),
            (_, answer) => assert_eq!(
                answer.expect_err("not in pre-copy").errno(),
                Some(consts::EINVAL),
                "{state}"
            ),
        }
    }
}

#[test]
fn the_data_size_is_an_upper_bound() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let device = &mut vm.devices()[0];
    device.client().set_mig_state(StopCopy).expect("it stops");
    let bound = device.client().mig_data_size().expect("a size");
    let stream = read_stream(device, 4096).expect("a stream");
    assert!(
        stream.len() as u64 <= bound,
        "{} bytes, {bound} announced",
        stream.len()
    );
    assert!(!stream.is_empty());
}
