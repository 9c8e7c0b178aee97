//! `rig-proxy`: devices that `pagetrail vfio` passes through, as their client sees them.
//!
//! To be run as root in a VM that has QEMU's test devices behind an IOMMU model, given to VFIO (`scripts/run-in-rig --proxy`). It
//! starts servers, is their client, tells the devices what to write, and prints TAP. Of pagetrail it knows the command line and the
//! wire.

mod bad_input;
mod checks;
mod engine;
mod guest;
mod hops;
mod host;
mod migration;
mod mixed;
mod plain;
mod race;
mod removal;
mod served;
mod subject;
mod three;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use engine::Kind;
use subject::{Subject, Tracker};

/// Checks devices that pagetrail passes through, on this machine.
#[derive(Parser)]
struct Args {
    /// A device that writes on demand (iommu-testdev, edu or a virtual function of mlx5-rig), by its PCI address; can be repeated. The
    /// first two virtual functions are the ends of migrations.
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

/// Runs checks, and counts them.
#[derive(Default)]
struct Tap {
    filter: String,
    number: u32,
    failed: u32,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let subjects = args
        .pci
        .iter()
        .map(|address| Subject::new(&args.pagetrail, address));
    let subjects = subjects.collect::<Result<Vec<_>>>()?;
    let (vfs, others): (Vec<_>, Vec<_>) = subjects.into_iter().partition(|subject| subject.kind == Kind::Vf);
    let mut tap = Tap {
        filter: args.filter,
        ..Tap::default()
    };
    println!("TAP version 13");
    for subject in &others {
        tap.check_one(subject, &if args.plain { plain::all() } else { checks::all() });
    }
    if let Some(vf) = vfs.first() {
        tap.check_one(&vf.by(Tracker::Device), &checks::all());
    }
    if let [from, to, ..] = &vfs[..] {
        tap.check_migrations(from, to);
    }
    if let ([other, ..], [vf, ..]) = (&others[..], &vfs[..]) {
        for check in three::all() {
            tap.run(&format!("three trackers: {}", check.name), || {
                (check.run)(other, vf)
            });
        }
    }
    println!(
        "1..{}\n# {} of {} checks failed",
        tap.number, tap.failed, tap.number
    );
    Ok(ExitCode::from(u8::from(tap.failed > 0)))
}

impl Tap {
    fn check_one(&mut self, subject: &Subject, checks: &[checks::Check]) {
        for check in checks {
            self.run(&format!("{}: {}", subject.kind, check.name), || {
                (check.run)(subject)
            });
        }
    }

    /// Migrations between two virtual functions, whoever tracks them.
    fn check_migrations(&mut self, from: &Subject, to: &Subject) {
        for tracker in [Tracker::Iommu, Tracker::Device] {
            let (from, to) = (from.by(tracker), to.by(tracker));
            for check in migration::all(tracker) {
                let name = format!("{} tracked by {tracker}: {}", from.kind, check.name);
                self.run(&name, || (check.run)(&from, &to));
            }
        }
    }

    /// Runs one check and prints its line.
    fn run(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        if !name.contains(&self.filter) {
            return;
        }
        self.number += 1;
        match check() {
            Ok(()) => println!("ok {} - {name}", self.number),
            Err(error) => {
                self.failed += 1;
                let why = format!("{error:#}").replace('\n', "\n# ");
                println!("not ok {} - {name}\n# {why}", self.number);
            }
        }
    }
}
