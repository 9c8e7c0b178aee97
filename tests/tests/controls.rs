//! Negative controls: servers of the build with faults. Each fault must be caught by the oracle, and the control's control must
//! pass. A check that cannot fail proves nothing.

mod common;

use common::{Host, faulty, options, start};
use vfio_user_check::migrate::{MigrateError, Options, Outcome, Silent, run};
use vfio_user_check::vmm::{Backing, GuestMemory};

/// First page of the generator's window.
const FIRST_PAGE: u64 = 1 << 20;

/// Migrations after which a fault that needs a race must have shown.
const TRIES: usize = 20;

fn migrate(source: &Host, options: Options) -> Result<Outcome, MigrateError> {
    let dest_host = Host::start(1);
    let memory = GuestMemory::pc(common::MEMORY, Backing::Sealed).expect("memory");
    let mut vm = source.vm(&memory);
    let mut dest = dest_host.stopped_vm(&memory.same_layout().expect("memory"));
    let mut workload = start(&mut vm, 0);
    run(&mut vm, &mut dest, options, &mut workload, None, &mut Silent)
}

/// The first migration whose check failed. A device that gets no time to write between two passes has no page to lose.
fn first_caught(host: &Host) -> Option<Outcome> {
    (0..TRIES)
        .map(|_| migrate(host, options()).expect("it migrates"))
        .find(|outcome| !outcome.verdict.passed())
}

fn is_caught(fault: &str) -> bool {
    first_caught(&faulty::start(fault)).is_some()
}

#[test]
fn suppressed_marks_of_one_page_are_caught_and_the_page_is_named() {
    let page = FIRST_PAGE + 5 * 4096;
    let host = faulty::start(&format!("suppress-page={page:#x}"));
    let outcome = first_caught(&host).expect("a check that fails");
    let lost: Vec<u64> = outcome.verdict.lost.iter().map(|lost| lost.iova).collect();
    assert_eq!(lost, [page], "{:#?}", outcome.verdict);
    assert_eq!(
        outcome.verdict.lost[0].devices,
        [host.socket().display().to_string()]
    );
}

#[test]
fn a_reader_without_its_barrier_is_caught() {
    assert!(is_caught("no-reader-barrier"));
}

#[test]
fn the_same_store_buffer_with_the_barrier_passes() {
    let host = faulty::start("store-buffer");
    for _ in 0..3 {
        let outcome = migrate(&host, options()).expect("it migrates");
        assert!(outcome.passed(), "{}", vfio_user_check::report::text(&outcome));
    }
}

#[test]
fn marks_before_writes_are_caught() {
    assert!(is_caught("mark-before-write"));
}

#[test]
fn late_reports_are_caught() {
    assert!(is_caught("late-report"));
}

#[test]
fn a_corrupted_stream_is_caught_by_the_destination() {
    let host = faulty::start("corrupt-stream");
    let error = migrate(&host, options()).expect_err("the destination must refuse it");
    assert!(matches!(error, MigrateError::Vm(_)), "{error:?}");
}
