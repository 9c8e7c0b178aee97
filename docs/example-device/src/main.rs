//! The program `digest`: serves one `digest` device.

use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::Parser;
use pagetrail::program::{About, Program};
use pagetrail_example_device::DigestModel;

// ANCHOR: main
const ABOUT: About = About {
    kind: "digest",
    summary: "digests of guest memory, block by block",
};

/// A PCI device that writes digests of guest memory into guest memory.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    program: Program,

    /// The most blocks of one job. Both ends of a migration must agree.
    #[arg(long, value_name = "N", default_value = "65536")]
    max_blocks: NonZeroU32,
}

fn main() -> ExitCode {
    let Options { program, max_blocks } = Options::parse();
    program.run(ABOUT, DigestModel { max_blocks })
}
// ANCHOR_END: main
