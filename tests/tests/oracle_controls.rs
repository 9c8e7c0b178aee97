//! Negative controls of the oracle, against a model of a device server that needs no other process: each way to lose a page
//! must be caught, and a model without a fault must pass.

mod model;

use std::path::PathBuf;

use model::{Fault, Model};
use vfio_user_check::migrate::churn::Churn;
use vfio_user_check::migrate::{Load, MigrateError, Options, Outcome, Silent, Workload, run};
use vfio_user_check::oracle::Depth;
use vfio_user_check::vmm::{Backing, GuestMemory, Vm};

const MEMORY: u64 = 16 << 20;
const LOAD: Load = Load {
    window_percent: 5,
    rate: 0,
    seed: 3,
};
/// First page of the first device's window: the arena starts above 1 MiB.
const FIRST_PAGE: u64 = 1 << 20;

struct Rig {
    _folder: tempfile::TempDir,
    _models: Vec<Model>,
    source: Vm,
    dest: Vm,
}

fn rig(devices: usize, source_fault: Fault) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = |side: &str| -> Vec<PathBuf> {
        (0..devices)
            .map(|n| folder.path().join(format!("{side}{n}")))
            .collect()
    };
    let (sources, dests) = (paths("source"), paths("dest"));
    let mut models: Vec<Model> = sources
        .iter()
        .map(|path| Model::start(path, source_fault))
        .collect();
    models.extend(dests.iter().map(|path| Model::start(path, Fault::None)));
    let memory = GuestMemory::pc(MEMORY, Backing::Sealed).expect("memory");
    memory.fill(1);
    let dest_memory = memory.same_layout().expect("memory");
    let mut source = Vm::connect(&sources, memory).expect("the source connects");
    let dest = Vm::connect(&dests, dest_memory).expect("the destination connects");
    source.enable_devices().expect("the devices can be enabled");
    Rig {
        _folder: folder,
        _models: models,
        source,
        dest,
    }
}

fn options() -> Options {
    Options {
        max_passes: 4,
        threshold: 0,
        ..Options::default()
    }
}

fn migrate(devices: usize, fault: Fault, options: Options) -> Result<Outcome, MigrateError> {
    let mut rig = rig(devices, fault);
    let mut workload = Workload::start(&mut rig.source, LOAD).expect("the generators start");
    run(
        &mut rig.source,
        &mut rig.dest,
        options,
        &mut workload,
        None,
        &mut Silent,
    )
}

#[test]
fn a_device_without_a_fault_passes() {
    for depth in [Depth::Full, Depth::End] {
        let outcome = migrate(1, Fault::None, Options { depth, ..options() }).expect("it migrates");
        assert!(outcome.passed(), "{outcome:#?}");
        assert!(outcome.replays[0].pages_right > 100);
        assert!(outcome.replays[0].writes_at_check > outcome.replays[0].writes_at_switch_over);
    }
}

#[test]
fn several_devices_of_one_vm_pass() {
    let outcome = migrate(3, Fault::None, options()).expect("it migrates");
    assert!(outcome.passed(), "{outcome:#?}");
    assert_eq!(outcome.replays.len(), 3);
}

#[test]
fn every_page_size_of_the_reports_passes() {
    for page_size in [512, 4096, 1 << 16, 1 << 21] {
        let outcome = migrate(
            1,
            Fault::None,
            Options {
                page_size,
                ..options()
            },
        )
        .expect("it migrates");
        assert!(outcome.passed(), "page size {page_size}: {outcome:#?}");
    }
}

#[test]
fn a_page_whose_marks_are_suppressed_is_lost_and_named() {
    let page = FIRST_PAGE + 7 * 4096;
    let outcome = migrate(2, Fault::SuppressPage(page), options()).expect("it migrates");
    assert!(!outcome.passed());
    assert_eq!(outcome.verdict.lost.len(), 1, "{:#?}", outcome.verdict);
    let lost = &outcome.verdict.lost[0];
    assert_eq!(lost.iova, page);
    assert_eq!(lost.devices, [outcome.devices[0].clone()]);
}

/// Faults that lose a page only when a report comes at the wrong moment: a few migrations must show one.
fn is_caught(fault: Fault) -> bool {
    (0..20).any(|_| {
        let outcome = migrate(1, fault, options()).expect("it migrates");
        !outcome.verdict.passed()
    })
}

#[test]
fn pages_marked_before_they_are_written_are_lost() {
    assert!(is_caught(Fault::MarkBeforeWrite));
}

#[test]
fn pages_reported_late_are_lost() {
    assert!(is_caught(Fault::LateReport));
}

#[test]
fn a_corrupted_stream_is_refused_and_the_source_runs_on() {
    let mut rig = rig(1, Fault::CorruptStream);
    let mut workload = Workload::start(&mut rig.source, LOAD).expect("the generators start");
    let failed = run(
        &mut rig.source,
        &mut rig.dest,
        options(),
        &mut workload,
        None,
        &mut Silent,
    );
    assert!(matches!(failed, Err(MigrateError::Vm(_))), "{failed:?}");
    let state = rig.source.devices()[0].client().mig_state().expect("a state");
    assert_eq!(state, vfio_user_check::wire::MigState::Running);
}

#[test]
fn a_write_that_was_counted_and_not_done_is_seen_by_the_replay() {
    let outcome = migrate(1, Fault::SkipWrite, options()).expect("it migrates");
    assert!(
        outcome.verdict.passed(),
        "nothing was written, so nothing was lost: {:#?}",
        outcome.verdict
    );
    assert!(!outcome.passed());
    assert!(!outcome.replays[0].problems.is_empty());
}

fn churned(fault: Fault) -> (Outcome, Churn) {
    let mut rig = rig(2, fault);
    let mut churn = Churn::prepare(&mut rig.source, &mut rig.dest).expect("memory can be plugged");
    let mut workload = Workload::start(&mut rig.source, LOAD).expect("the generators start");
    let options = Options {
        max_passes: 9,
        ..options()
    };
    let result = run(
        &mut rig.source,
        &mut rig.dest,
        options,
        &mut workload,
        Some(&mut churn),
        &mut Silent,
    );
    (result.expect("it migrates"), churn)
}

#[test]
fn memory_that_comes_and_goes_and_resets_lose_nothing() {
    let (outcome, churn) = churned(Fault::None);
    assert!(outcome.passed(), "{outcome:#?}");
    for what in [
        "memory unplugged",
        "memory plugged",
        "device reset",
        "logging restarted",
    ] {
        assert!(
            churn.done().contains(&what),
            "{what} is not among {:?}",
            churn.done()
        );
    }
}

#[test]
fn a_page_of_memory_that_has_gone_must_still_be_reported() {
    let page = (1 << 40) + 5 * 4096;
    let (outcome, _) = churned(Fault::SuppressPage(page));
    let pages: Vec<u64> = outcome.verdict.lost.iter().map(|lost| lost.iova).collect();
    assert!(pages.contains(&page), "{pages:#x?}");
}
