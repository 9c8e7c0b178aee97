//! Negative controls of the scenarios with real guests: a server that loses a page must make them fail, by name of the page.

mod qemu;

use qemu::{faulty, play_with, setup};
use vfio_user_check::report::vm::Outcome;

/// A page in the middle of the first device's generator window.
const VICTIM: u64 = 140 << 20;

fn outcome_with(fault: &str) -> Outcome {
    let mut setup = setup();
    setup.source = faulty(fault);
    play_with("flat-out", &setup).outcome
}

#[test]
fn a_page_that_is_never_marked_makes_the_scenario_fail_and_is_named() {
    let outcome = outcome_with(&format!("suppress-page={VICTIM:#x}"));
    let Outcome::Failed(reason) = outcome else {
        panic!("a lost page went unseen: {outcome:?}");
    };
    assert!(
        reason.contains("memory was lost") && reason.contains(&format!("{VICTIM:#x}")),
        "{reason}"
    );
}

#[test]
fn a_server_that_spoils_its_stream_makes_the_scenario_fail() {
    let outcome = outcome_with("corrupt-stream");
    assert!(
        matches!(&outcome, Outcome::Failed(reason) if reason.contains("ended as failed")),
        "{outcome:?}"
    );
}
