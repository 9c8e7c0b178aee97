//! `rig-proxy`: devices that `pagetrail vfio` passes through, as their client sees them.
//!
//! To be run as root in a VM that has QEMU's test devices behind an IOMMU model, bound to vfio-pci (`scripts/run-in-rig --proxy`). It
//! starts servers, is their client, tells the devices what to write, and prints TAP. Of pagetrail it knows the command line and the
//! wire.

mod bad_input;
mod checks;
mod engine;
mod guest;
mod migration;
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
    /// A device that writes on demand (iommu-testdev, edu or a virtual function of mlx5-rig), by its PCI address; can be repeated. Each
    /// device that migrates does so to the next one.
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
    /// Who tracks what it writes.
    pub(crate) tracker: Tracker,
}

/// Who tracks what a device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracker {
    Iommu,
    Device,
    Nobody,
}

impl Subject {
    fn of(args: &Args, address: &str) -> Result<Self> {
        let id = |name: &str| {
            let path = format!("/sys/bus/pci/devices/{address}/{name}");
            std::fs::read_to_string(&path).with_context(|| format!("no {path}"))
        };
        // A virtual function has its vendor and device from the physical one, in sysfs as well as for VFIO.
        let kind = Kind::of(id("vendor")?.trim(), id("device")?.trim())?;
        Ok(Self {
            pagetrail: args.pagetrail.clone(),
            address: address.to_owned(),
            kind,
            tracker: match (args.plain, kind) {
                (false, _) => Tracker::Iommu,
                (true, Kind::Vf) => Tracker::Device,
                (true, _) => Tracker::Nobody,
            },
        })
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut failed = 0;
    let mut number = 0;
    println!("TAP version 13");
    let subjects = args.pci.iter().map(|address| Subject::of(&args, address));
    let subjects = subjects.collect::<Result<Vec<_>>>()?;
    let mut run = |name: &str, check: &dyn Fn() -> Result<()>| {
        if name.contains(&args.filter) {
            number += 1;
            failed += u32::from(!passes(number, name, check));
        }
    };
    for subject in &subjects {
        for check in checks_of(subject) {
            run(&format!("{}: {}", subject.kind, check.name), &|| {
                (check.run)(subject)
            });
        }
    }
    for pair in subjects
        .windows(2)
        .filter(|pair| pair.iter().all(|end| end.kind == Kind::Vf))
    {
        for check in migration::all() {
            run(&format!("{}: {}", pair[0].kind, check.name), &|| {
                (check.run)(&pair[0], &pair[1])
            });
        }
    }
    println!("1..{number}\n# {failed} of {number} checks failed");
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn checks_of(subject: &Subject) -> Vec<Check> {
    match subject.tracker {
        Tracker::Iommu => checks::all(),
        // The machine is the one that hands nothing out before it is told to.
        Tracker::Device => std::iter::once(plain::first()).chain(checks::all()).collect(),
        Tracker::Nobody => plain::all(),
    }
}

/// Runs one check and prints its line.
fn passes(number: u32, name: &str, check: &dyn Fn() -> Result<()>) -> bool {
    match check() {
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
