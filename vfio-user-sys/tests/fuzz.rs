//! What the fuzzer found, and what reading found, stays mended: `scripts/fuzz` replays its inputs under sanitizers.

use std::path::Path;
use std::process::Command;

fn fuzz(mode: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fuzz");
    let output = Command::new(script)
        .arg(mode)
        .output()
        .expect("scripts/fuzz can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn no_known_input_breaks_the_library() {
    fuzz("replay");
}

#[test]
fn every_mend_is_shown_by_an_input_that_fails_without_it() {
    fuzz("controls");
}
