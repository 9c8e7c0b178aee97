//! `/init` of a test VM.

fn main() {
    pagetrail_guest::agent::main();
}
