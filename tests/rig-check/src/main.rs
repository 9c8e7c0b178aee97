//! `rig-check`: the trackers of hardware against the kernel, the IOMMU and a device that can be told what to write.
//!
//! It is one static program, to be run as root in a VM that has one of QEMU's test devices behind an IOMMU model, bound to
//! vfio-pci. It prints TAP.

mod checks;
mod device;
mod engine;
mod memory;
mod race;
mod space;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;

use checks::Check;
use device::Device;

/// Checks the IOMMU tracker on this machine with a device that writes on demand (iommu-testdev or edu).
#[derive(Parser)]
struct Args {
    /// The device, by its character device: /dev/vfio/devices/vfioN.
    #[arg(long, conflicts_with = "pci", required_unless_present = "pci")]
    device: Option<PathBuf>,
    /// The device, by its PCI address: 0000:00:03.0.
    #[arg(long)]
    pci: Option<String>,
    /// The iommufd.
    #[arg(long, default_value = "/dev/iommu")]
    iommufd: PathBuf,
    /// DMA writes of each race between writes and reads.
    #[arg(long, default_value_t = 200_000)]
    race_writes: u64,
    /// Runs only checks whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Prints the names of the checks.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let checks: Vec<Check> = checks::all(args.race_writes)
        .into_iter()
        .filter(|check| check.name.contains(&args.filter))
        .collect();
    if args.list {
        for check in &checks {
            println!("{}", check.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let device = Arc::new(match (&args.device, &args.pci) {
        (Some(path), _) => Device::open(&args.iommufd, path)?,
        (None, Some(address)) => Device::open(&args.iommufd, &device::path_of(address)?)?,
        (None, None) => unreachable!("clap requires one of them"),
    });
    space::explain(&device)?;
    println!("TAP version 13\n1..{}", checks.len());
    let failed = (1..)
        .zip(&checks)
        .filter(|(number, check)| !passes(*number, check, &device))
        .count();
    println!("# {} of {} checks failed", failed, checks.len());
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Runs one check and prints its line. A panic in it is a failure.
fn passes(number: usize, check: &Check, device: &Arc<Device>) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| (check.run)(device)));
    let error = match result {
        Ok(Ok(())) => {
            println!("ok {number} - {}", check.name);
            return true;
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(_) => "panicked".to_owned(),
        },
    };
    println!(
        "not ok {number} - {}\n# {}",
        check.name,
        error.replace('\n', "\n# ")
    );
    false
}
