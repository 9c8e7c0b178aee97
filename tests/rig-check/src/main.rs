//! `rig-check`: the trackers of hardware against the kernel, the IOMMU and devices that can be told what to write.
//!
//! It is one static program, to be run as root in a VM that has some of QEMU's devices behind an IOMMU model, bound to
//! vfio-pci: iommu-testdev, edu, and nvme with a drive as `scripts/run-in-rig` makes it. It prints TAP.

mod bench;
mod checks;
mod device;
mod memory;
mod mlx5;
mod race;
mod registers;
mod scratch;
mod space;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use iommufd_ioctls::IommuFd;
use pagetrail_rig_devices::Tap;

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
        .collect();
    if args.list {
        let names = checks.iter().map(|check| &check.name);
        names
            .filter(|name| name.contains(&args.filter))
            .for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    for device in &devices {
        space::explain(&device.kind.to_string(), &iommufd, &device.vfio, device.id)?;
    }
    for vf in &vfs {
        space::explain("an mlx5 virtual function", &iommufd, &vf.vfio, vf.id)?;
    }
    let mut tap = Tap::begin(args.filter);
    for check in &checks {
        tap.run(&check.name, &check.run);
    }
    Ok(tap.end())
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
