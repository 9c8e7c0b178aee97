//! `rig-proxy`: devices that `pagetrail vfio` passes through, as their client sees them.
//!
//! To be run as root in a VM that has QEMU's test devices behind an IOMMU model, bound to vfio-pci (`scripts/run-in-rig --proxy`). It
//! starts servers, is their client, tells the devices what to write, and prints TAP. Of pagetrail it knows the command line and the
//! wire.

mod bad_input;
mod checks;
mod engine;
mod guest;
mod mixed;
mod plain;
mod race;
mod served;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use checks::Check;
use engine::Kind;

/// Checks devices that pagetrail passes through, on this machine.
#[derive(Parser)]
struct Args {
    /// A device that writes on demand (iommu-testdev or edu), by its PCI address; can be repeated.
    #[arg(long, required = true)]
    pci: Vec<String>,
    /// The server.
    #[arg(long, default_value = "/rig/files/pagetrail")]
    pagetrail: PathBuf,
    /// The IOMMU has no dirty bits, and interrupt remapping is off.
    #[arg(long)]
    plain: bool,
    /// Runs only checks whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
}

/// A device, and the program that serves it.
pub(crate) struct Subject {
    pub(crate) pagetrail: PathBuf,
    pub(crate) address: String,
    pub(crate) kind: Kind,
}

impl Subject {
    fn of(args: &Args, address: &str) -> Result<Self> {
        let id = |name: &str| {
            let path = format!("/sys/bus/pci/devices/{address}/{name}");
            std::fs::read_to_string(&path).with_context(|| format!("no {path}"))
        };
        Ok(Self {
            pagetrail: args.pagetrail.clone(),
            address: address.to_owned(),
            kind: Kind::of(id("vendor")?.trim(), id("device")?.trim())?,
        })
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut failed = 0;
    let mut number = 0;
    println!("TAP version 13");
    for address in &args.pci {
        let subject = Subject::of(&args, address)?;
        let checks = if args.plain { plain::all() } else { checks::all() };
        for check in checks.iter().filter(|check| check.name.contains(&args.filter)) {
            number += 1;
            failed += u32::from(!passes(number, check, &subject));
        }
    }
    println!("1..{number}\n# {failed} of {number} checks failed");
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Runs one check and prints its line.
fn passes(number: u32, check: &Check, subject: &Subject) -> bool {
    let name = format!("{}: {}", subject.kind, check.name);
    match (check.run)(subject) {
        Ok(()) => {
            println!("ok {number} - {name}");
            true
        }
        Err(error) => {
            let why = format!("{error:#}").replace('\n', "\n# ");
            println!("not ok {number} - {name}\n# {why}");
            false
        }
    }
}
