//! Negative controls: servers of the build with faults. Each fault must be caught by the oracle, and the control's control must
//! pass. A check that cannot fail proves nothing.

mod common;

use common::{Host, faulty, options, start};
use std::time::Duration;

use vfio_user_check::migrate::{Event, MigrateError, Observer, Options, Outcome, run};
use vfio_user_check::vmm::{Backing, GuestMemory};

/// First page of the generator's window.
const FIRST_PAGE: u64 = 1 << 20;

/// Migrations after which a fault that needs a race must have shown.
const TRIES: usize = 20;

/// Lets the devices write between two passes, however busy the machine is: one that gets no time has no page to lose.
struct Unhurried;

impl Observer for Unhurried {
    fn event(&mut self, event: Event<'_>) {
        if matches!(event, Event::PassDone(_)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Page writes per second at which a device writes all of its window many times between two passes: as fast as it can.
const FLAT_OUT: u64 = 0;

/// Page writes per second at which what a device writes between two passes is a small part of its window, and another one each time.
const NOW_AND_THEN: u64 = 5_000;

fn migrate(source: &Host, rate: u64, options: Options) -> Result<Outcome, MigrateError> {
    let dest_host = Host::start(1);
    let memory = GuestMemory::pc(common::MEMORY, Backing::Sealed).expect("memory");
    let mut vm = source.vm(&memory);
    let mut dest = dest_host.stopped_vm(&memory.same_layout().expect("memory"));
    let mut workload = start(&mut vm, rate);
    run(&mut vm, &mut dest, options, &mut workload, None, &mut Unhurried)
}

/// The first migration whose check failed.
fn first_caught(host: &Host, rate: u64) -> Option<Outcome> {
    (0..TRIES)
        .map(|_| migrate(host, rate, options()).expect("it migrates"))
        .find(|outcome| !outcome.verdict.passed())
}

fn is_caught(fault: &str) -> bool {
    first_caught(&faulty::start(fault), FLAT_OUT).is_some()
}

#[test]
fn suppressed_marks_of_one_page_are_caught_and_the_page_is_named() {
    let page = FIRST_PAGE + 5 * 4096;
    let host = faulty::start(&format!("suppress-page={page:#x}"));
    let outcome = first_caught(&host, FLAT_OUT).expect("a check that fails");
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
        let outcome = migrate(&host, FLAT_OUT, options()).expect("it migrates");
        assert!(outcome.passed(), "{}", vfio_user_check::report::text(&outcome));
    }
}

#[test]
fn marks_before_writes_are_caught() {
    assert!(is_caught("mark-before-write"));
}

/// A page that is written between every two passes is in every report, late or not.
#[test]
fn late_reports_are_caught() {
    let host = faulty::start("late-report");
    assert!(first_caught(&host, NOW_AND_THEN).is_some());
}

#[test]
fn a_corrupted_stream_is_caught_by_the_destination() {
    let host = faulty::start("corrupt-stream");
    let error = migrate(&host, FLAT_OUT, options()).expect_err("the destination must refuse it");
    assert!(matches!(error, MigrateError::Vm(_)), "{error:?}");
}
