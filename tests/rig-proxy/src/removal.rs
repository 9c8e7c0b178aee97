//! The device is taken out of the machine while it is served.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{Outcome, PAGE, equal};
use vfio_user_check::wire::MigState;

use crate::guest::Guest;
use crate::host::{Asked, attribute};
use crate::served::Served;
use crate::subject::Subject;

/// How a device is taken out, and comes back.
enum Slot {
    /// One of its bus, by its address.
    Bus(String),
    /// A virtual function: all of its adapter's go.
    Adapter { folder: PathBuf, functions: String },
}

impl Slot {
    fn of(subject: &Subject) -> Result<Self> {
        let folder = attribute(&subject.address, "physfn");
        if !folder.exists() {
            return Ok(Self::Bus(subject.address.clone()));
        }
        let functions = fs::read_to_string(folder.join("sriov_numvfs"))?;
        let folder = folder.canonicalize()?;
        Ok(Self::Adapter { folder, functions })
    }

    /// Takes as long as the device is in use.
    fn take_out(&self) -> Asked {
        match self {
            Self::Bus(address) => Asked::write(attribute(address, "remove"), "1"),
            Self::Adapter { folder, .. } => Asked::write(folder.join("sriov_numvfs"), "0"),
        }
    }

    /// With the driver that it had.
    fn put_back(&self) -> Result<()> {
        match self {
            Self::Bus(address) => {
                fs::write("/sys/bus/pci/rescan", "1").context("the bus is not looked at again")?;
                give(address, "vfio-pci")
            }
            Self::Adapter { folder, functions } => {
                fs::write(folder.join("sriov_numvfs"), functions.trim())
                    .context("the adapter does not make its functions again")?;
                for number in 0..functions.trim().parse::<u32>()? {
                    let function = fs::read_link(folder.join(format!("virtfn{number}")))?;
                    let address = function.file_name().context("no address")?.to_string_lossy();
                    give(&address, "mlx5_vfio_pci")?;
                }
                Ok(())
            }
        }
    }
}

/// Has a driver take a device that another one may have, or be about to take.
fn give(address: &str, driver: &str) -> Result<()> {
    fs::write(attribute(address, "driver_override"), driver)?;
    for _ in 0..2 {
        match driver_of(address) {
            Some(other) if other != driver => fs::write(attribute(address, "driver/unbind"), address)?,
            _ => {}
        }
        fs::write("/sys/bus/pci/drivers_probe", address)
            .with_context(|| format!("{driver} does not take {address}"))?;
    }
    let taken_by = driver_of(address);
    ensure!(
        taken_by.as_deref() == Some(driver),
        "{address} is taken by {taken_by:?}"
    );
    Ok(())
}

/// The name of the driver that a device has, if it has one.
fn driver_of(address: &str) -> Option<String> {
    let link = fs::read_link(attribute(address, "driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// It is let go of, what it wrote is not called clean, and it is served again once it is back.
pub(crate) fn taken_out(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &["--no-bar-mmap"])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        ensure!(guest.write_by_messages(3 * PAGE)? == Outcome::Written, "stopped");
        let slot = Slot::of(subject)?;
        slot.take_out().wait()?;
        let report = guest.report_all();
        drop(guest);
        let refused = Guest::new(subject, &served.sockets);
        slot.put_back()?;
        ensure!(
            report.is_err(),
            "there is a report of a device that is gone: {report:?}"
        );
        ensure!(refused.is_err(), "a device that is gone is served");
        let log = served.server.log();
        ensure!(log.contains("there is no PCI device"), "the log does not say why");
        works(&mut Guest::new(subject, &served.sockets)?)
    };
    served.explain(check())
}

/// It goes in the middle of a migration, which must not come to a good end, and can migrate when it is back.
pub(crate) fn taken_out_while_it_migrates(from: &Subject, to: &Subject) -> Result<()> {
    let ends = [
        Served::vfio(from, &["--no-bar-mmap"])?,
        Served::vfio(to, &["--no-bar-mmap"])?,
    ];
    let check = || {
        let mut source = Guest::new(from, &ends[0].sockets)?;
        let mut destination = Guest::new(to, &ends[1].sockets)?;
        source.start_log()?;
        source.device().client().set_mig_state(MigState::PreCopy)?;
        ensure!(source.write_by_messages(3 * PAGE)? == Outcome::Written, "stopped");
        destination.device().client().set_mig_state(MigState::Resuming)?;
        let slot = Slot::of(from)?;
        slot.take_out().wait()?;
        let report = source.report_all();
        let stopped = source.device().client().set_mig_state(MigState::StopCopy);
        let resumed = destination.device().client().set_mig_state(MigState::Running);
        drop((source, destination));
        slot.put_back()?;
        ensure!(
            report.is_err(),
            "there is a report of a device that is gone: {report:?}"
        );
        ensure!(stopped.is_err(), "a device that is gone stops and has a state");
        ensure!(
            resumed.is_err(),
            "a device that is gone goes on at the destination"
        );
        works(&mut Guest::new(from, &ends[0].sockets)?)?;
        works(&mut Guest::new(to, &ends[1].sockets)?)
    };
    ends[0].explain(ends[1].explain(check()))
}

fn works(guest: &mut Guest) -> Result<()> {
    guest.start_log()?;
    ensure!(guest.write_by_messages(5 * PAGE)? == Outcome::Written, "stopped");
    equal("the report once it is back", &guest.report_all()?, &[5])
}
