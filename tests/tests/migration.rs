//! Live migration between two server processes: no page is lost, whatever the devices do meanwhile.

mod common;

use common::{Host, Pair, load, options, start};
use vfio_user_check::migrate::churn::Churn;
use vfio_user_check::migrate::{AfterCheck, Migration, Options, Outcome, PreCopy, Silent, Workload, run};
use vfio_user_check::vmm::Vm;
use vfio_user_check::wire::MigState;

fn migrate(devices: usize, rate: u64, options: Options) -> Outcome {
    let mut pair = Pair::new(devices);
    let mut workload = start(&mut pair.source, rate);
    run_to_the_end(&mut pair.source, &mut pair.dest, options, &mut workload)
}

fn run_to_the_end(source: &mut Vm, dest: &mut Vm, options: Options, workload: &mut Workload) -> Outcome {
    let outcome =
        run(source, dest, options, workload, None, &mut Silent).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(outcome.passed(), "{}", vfio_user_check::report::text(&outcome));
    outcome
}

#[test]
fn one_device_flat_out_loses_no_page() {
    let outcome = migrate(1, 0, options());
    assert!(outcome.dma_logging && outcome.pre_copy && outcome.p2p);
    assert!(outcome.replays[0].pages_right > 1000);
}

#[test]
fn four_devices_of_one_vm_flat_out_lose_no_page() {
    let outcome = migrate(4, 0, options());
    assert_eq!(outcome.replays.len(), 4);
}

#[test]
fn a_device_that_writes_slowly_converges() {
    let outcome = migrate(
        1,
        2000,
        Options {
            threshold: 400,
            max_passes: 50,
            ..Options::default()
        },
    );
    let last = outcome.passes.iter().rev().nth(1).expect("a live pass");
    assert!(last.pages <= 400, "the last live pass had {} pages", last.pages);
}

#[test]
fn an_idle_device_sends_memory_once() {
    let mut pair = Pair::new(1);
    let mut nothing = Workload::default();
    let outcome = run_to_the_end(&mut pair.source, &mut pair.dest, options(), &mut nothing);
    let after_the_first: u64 = outcome.passes.iter().skip(1).map(|pass| pass.pages).sum();
    assert_eq!(after_the_first, 0, "{outcome:#?}");
}

#[test]
fn reports_in_every_page_size_lose_no_page() {
    for page_size in [512, 2048, 8192, 1 << 16, 1 << 21] {
        migrate(
            1,
            20_000,
            Options {
                page_size,
                max_passes: 2,
                ..options()
            },
        );
    }
}

#[test]
fn without_pre_copy_the_state_travels_after_the_stop() {
    let outcome = migrate(
        2,
        0,
        Options {
            pre_copy: PreCopy::Off,
            max_passes: 1,
            ..options()
        },
    );
    assert!(!outcome.pre_copy);
    assert!(outcome.device_bytes() > 0);
}

#[test]
fn state_in_small_pieces_arrives_whole() {
    migrate(
        1,
        0,
        Options {
            chunk: 7,
            max_passes: 1,
            ..options()
        },
    );
}

#[test]
fn a_cancelled_migration_can_be_made_again() {
    let mut pair = Pair::new(2);
    let mut workload = start(&mut pair.source, 0);
    for _ in 0..3 {
        let mut silent = Silent;
        let mut migration =
            Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
        migration.pass().expect("a pass");
        migration.pass().expect("a pass");
        migration.cancel().expect("it is cancelled");
        let state = pair.source.devices()[0].client().mig_state().expect("a state");
        assert_eq!(state, MigState::Running);
    }
    run_to_the_end(&mut pair.source, &mut pair.dest, options(), &mut workload);
}

#[test]
fn ten_hops_lose_no_page() {
    let hosts = [Host::start(1), Host::start(1)];
    let mut vm = hosts[0].vm(&common::memory());
    let mut workload = start(&mut vm, 0);
    workload.set_after_check(AfterCheck::Restart);
    for hop in 1..=10 {
        let layout = vm.memory().same_layout().expect("memory");
        let mut next = hosts[hop % 2].stopped_vm(&layout);
        let options = Options {
            max_passes: 2,
            ..options()
        };
        run_to_the_end(&mut vm, &mut next, options, &mut workload);
        vm = next;
    }
}

#[test]
fn memory_that_comes_and_goes_resets_and_restarted_logging_lose_no_page() {
    let mut pair = Pair::new(2);
    let mut churn = Churn::prepare(&mut pair.source, &mut pair.dest).expect("memory can be plugged");
    let mut workload = Workload::start(&mut pair.source, load(0)).expect("the generators start");
    let options = Options {
        max_passes: 13,
        ..options()
    };
    let outcome = run(
        &mut pair.source,
        &mut pair.dest,
        options,
        &mut workload,
        Some(&mut churn),
        &mut Silent,
    );
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(outcome.passed(), "{}", vfio_user_check::report::text(&outcome));
    assert!(churn.done().len() >= 12);
}

#[test]
fn sigterm_ends_a_server_in_the_middle_of_a_migration_with_success() {
    let mut pair = Pair::new(1);
    let _workload = start(&mut pair.source, 0);
    {
        let mut silent = Silent;
        let mut migration =
            Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
        migration.pass().expect("a pass");
    }
    let status = pair.source_host.stop();
    assert!(status.success(), "{status}");
}
