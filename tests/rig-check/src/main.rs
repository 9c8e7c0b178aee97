//! `rig-check`: the trackers of hardware against the kernel, the IOMMU and devices that can be told what to write.
//!
//! It is one static program, to be run as root in a VM that has some of QEMU's devices behind an IOMMU model, bound to
//! vfio-pci: iommu-testdev, edu, and nvme with a drive as `scripts/run-in-rig` makes it. It prints TAP.

mod bench;
mod checks;
mod device;
mod engine;
mod memory;
mod mlx5;
mod race;
mod registers;
mod scratch;
mod space;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use iommufd_ioctls::IommuFd;

use checks::Check;
use device::Device;
use mlx5::Vf;

/// Checks the IOMMU tracker on this machine with devices that write on demand (iommu-testdev, edu, nvme).
#[derive(Parser)]
struct Args {
    /// A device that vfio-pci has, by its PCI address: 0000:00:03.0. Can be repeated.
    #[arg(long, required_unless_present = "mlx5")]
    pci: Vec<String>,
    /// A virtual function that mlx5_vfio_pci has, by its PCI address. To be given twice or more.
    #[arg(long)]
    mlx5: Vec<String>,
    /// The iommufd.
    #[arg(long, default_value = "/dev/iommu")]
    iommufd: PathBuf,
    /// DMA writes of each race between writes and reads; slow devices do fewer.
    #[arg(long, default_value_t = 500_000)]
    race_writes: u64,
    /// Runs only checks whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Measures, instead, how long reads of the first device's address space take, or of the first virtual function's log if there is no
    /// device, against those of this command.
    #[arg(long, value_name = "COMMAND")]
    bench: Option<String>,
    /// Prints the names of the checks.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let iommufd = Arc::new(IommuFd::new_from_fd(device::open(&args.iommufd)?));
    let open = |(number, address): (usize, &String)| {
        let device = Device::open(&iommufd, address, number);
        device
            .map(Arc::new)
            .with_context(|| format!("cannot use {address}"))
    };
    let devices = args
        .pci
        .iter()
        .enumerate()
        .map(open)
        .collect::<Result<Vec<_>>>()?;
    if let (Some(command), Some(device)) = (&args.bench, devices.first()) {
        bench::of_iommu(device, command)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(command), Some(address)) = (&args.bench, args.mlx5.first()) {
        bench::of_log(&Arc::new(Vf::open(&iommufd, address)?), command)?;
        return Ok(ExitCode::SUCCESS);
    }
    let vfs = open_vfs(&iommufd, &args.mlx5)?;
    let of_each = devices
        .iter()
        .flat_map(|device| checks::of_device(device, args.race_writes));
    let checks: Vec<Check> = of_each
        .chain(checks::of_devices(&devices))
        .chain(mlx5::checks(&vfs, args.race_writes))
        .filter(|check| check.name.contains(&args.filter))
        .collect();
    if args.list {
        for check in &checks {
            println!("{}", check.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for device in &devices {
        space::explain(device.engine.name(), &iommufd, &device.vfio, device.id)?;
    }
    for vf in &vfs {
        space::explain("an mlx5 virtual function", &iommufd, &vf.vfio, vf.id)?;
    }
    println!("TAP version 13\n1..{}", checks.len());
    let failed = (1..)
        .zip(&checks)
        .filter(|(number, check)| !passes(*number, check))
        .count();
    println!("# {} of {} checks failed", failed, checks.len());
    Ok(ExitCode::from(u8::from(failed > 0 || checks.is_empty())))
}

/// Opens virtual functions: two or more, or none.
fn open_vfs(iommufd: &Arc<IommuFd>, addresses: &[String]) -> Result<Vec<Arc<Vf>>> {
    ensure!(addresses.len() != 1, "one virtual function is too few to migrate");
    let open = |address: &String| {
        let vf = Vf::open(iommufd, address);
        vf.map(Arc::new).with_context(|| format!("cannot use {address}"))
    };
    addresses.iter().map(open).collect()
}

/// Runs one check and prints its line. A panic in it is a failure.
fn passes(number: usize, check: &Check) -> bool {
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (check.run)()));
    let error = match result {
        Ok(Ok(())) => {
            println!("ok {number} - {} # {:.1?}", check.name, started.elapsed());
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
