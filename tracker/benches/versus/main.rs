//! `pagetrail-tracker` against vm-memory's `AtomicBitmap`, side by side in one run, as a table of ratios.
//!
//! `cargo bench -p pagetrail-tracker --bench versus [-- --json]`. Every figure is the median of pairs of measurements
//! of the two that follow each other at once, so that both see the same machine. A row that falls short is
//! said to; the exit status does not depend on it, because it depends on the machine.

mod marking;
mod measure;
mod reading;
mod sharing;
mod table;

use table::Row;

fn main() {
    let mut json = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            // What `cargo bench` and `cargo test` add.
            "--bench" => {}
            "--test" => return,
            unknown => {
                eprintln!("unknown argument {unknown}; known is --json");
                std::process::exit(2);
            }
        }
    }
    let rows: Vec<Row> = [marking::rows(), reading::rows(), sharing::rows()]
        .into_iter()
        .flatten()
        .collect();
    if json {
        table::print_json(&rows);
    } else {
        table::print(&rows);
    }
}
