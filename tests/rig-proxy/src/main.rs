//! `rig-proxy`: devices that `pagetrail vfio` passes through, as their client sees them.
//!
//! To be run as root in a VM that has QEMU's test devices behind an IOMMU model, given to VFIO (`scripts/run-in-rig --proxy`). It
//! starts servers, is their client, tells the devices what to write, and prints TAP. Of pagetrail it knows the command line and the
//! wire.

mod bad_input;
mod checks;
mod guest;
mod hops;
mod host;
mod migration;
mod mixed;
mod plain;
mod qemu;
mod race;
mod reach;
mod registers;
mod removal;
mod served;
mod subject;
mod three;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use pagetrail_rig_devices::{Kind, Tap};

use subject::{Subject, Tracker};

/// Checks devices that pagetrail passes through, on this machine.
#[derive(Parser)]
struct Args {
    /// A device that writes on demand (iommu-testdev, edu, nvme or a virtual function of mlx5-rig), by its PCI address; can be repeated.
    /// The first two virtual functions are the ends of migrations.
    #[arg(long, required = true)]
    pci: Vec<String>,
    /// The server.
    #[arg(long, default_value = "/rig/files/pagetrail")]
    pagetrail: PathBuf,
    /// A QEMU that migrates vfio-user devices: with it, virtual functions also migrate in VMs.
    #[arg(long)]
    qemu: Option<PathBuf>,
    /// The IOMMU has no dirty bits, and interrupt remapping is off.
    #[arg(long)]
    plain: bool,
    /// Runs only checks whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let subjects = args
        .pci
        .iter()
        .map(|address| Subject::new(&args.pagetrail, address));
    let subjects = subjects.collect::<Result<Vec<_>>>()?;
    let (vfs, others): (Vec<_>, Vec<_>) = subjects.into_iter().partition(|subject| subject.kind == Kind::Vf);
    let mut tap = Tap::begin(args.filter);
    for subject in &others {
        let checks = if args.plain {
            plain::all()
        } else {
            checks::all(subject.kind)
        };
        check_one(&mut tap, subject, &checks);
    }
    if let Some(vf) = vfs.first() {
        check_one(&mut tap, &vf.by(Tracker::Device), &checks::all(vf.kind));
    }
    if let [from, to, ..] = &vfs[..] {
        check_migrations(&mut tap, args.qemu.as_deref(), from, to);
    }
    if let ([other, ..], [vf, ..]) = (&others[..], &vfs[..]) {
        for check in three::all() {
            tap.run(&format!("three trackers: {}", check.name), || {
                (check.run)(other, vf)
            });
        }
    }
    Ok(tap.end())
}

fn check_one(tap: &mut Tap, subject: &Subject, checks: &[checks::Check]) {
    for check in checks {
        tap.run(&format!("{}: {}", subject.kind, check.name), || {
            (check.run)(subject)
        });
    }
}

/// Migrations between two virtual functions, whoever tracks them.
fn check_migrations(tap: &mut Tap, qemu: Option<&Path>, from: &Subject, to: &Subject) {
    for tracker in [Tracker::Iommu, Tracker::Device] {
        let (from, to) = (from.by(tracker), to.by(tracker));
        for check in migration::all(tracker) {
            let name = format!("{} tracked by {tracker}: {}", from.kind, check.name);
            tap.run(&name, || (check.run)(&from, &to));
        }
        let Some(qemu) = qemu else { continue };
        for check in qemu::all(tracker) {
            let name = format!("{} in QEMU, tracked by {tracker}: {}", from.kind, check.name);
            tap.run(&name, || (check.run)(qemu, &from, &to));
        }
    }
}
