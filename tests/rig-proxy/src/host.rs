//! The host takes the device back, as its administrator does by unbinding it from its driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{Outcome, PAGE, equal};
use vfio_user_check::client::IrqAction;
use vfio_user_check::vmm::{Interrupts, IrqKind};

use crate::guest::Guest;
use crate::served::Served;
use crate::subject::Subject;

/// VFIO's number of the interrupt by which the host asks for the device.
const REQUEST: u32 = 4;

const PATIENCE: Duration = Duration::from_secs(30);

/// A file of sysfs that is written, which takes as long as the device is in use.
pub(crate) struct Asked(JoinHandle<std::io::Result<()>>);

impl Asked {
    pub(crate) fn write(path: PathBuf, text: &str) -> Self {
        let text = text.to_owned();
        Self(thread::spawn(move || fs::write(path, text)))
    }

    /// Waits until it is written.
    pub(crate) fn wait(self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.0.is_finished() {
            ensure!(Instant::now() < deadline, "the host does not get the device back");
            thread::sleep(Duration::from_millis(5));
        }
        let written = self.0.join().expect("it does not panic");
        written.context("the host cannot take the device back")
    }
}

/// A file of the device's in sysfs.
pub(crate) fn attribute(address: &str, name: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(address).join(name)
}

/// The host unbinds the device.
fn unbind(subject: &Subject) -> Asked {
    Asked::write(attribute(&subject.address, "driver/unbind"), &subject.address)
}

/// And has the same driver take it again.
fn bind(subject: &Subject) -> Result<()> {
    fs::write("/sys/bus/pci/drivers_probe", &subject.address).context("the device is not bound again")
}

/// A client that does not listen for the host's wish is dropped, and one that comes while the device is gone is refused.
pub(crate) fn takes_back(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &["--no-bar-mmap"])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        unbind(subject).wait()?;
        ensure!(
            guest.device().client().device_info().is_err(),
            "the client has a device that is gone"
        );
        drop(guest);
        let refused = Guest::new(subject, &served.sockets);
        bind(subject)?;
        ensure!(refused.is_err(), "a device that is gone is served");
        let log = served.server.log();
        ensure!(
            log.contains("is not bound to a driver of VFIO's"),
            "the log does not say why"
        );
        let mut guest = Guest::new(subject, &served.sockets)?;
        guest.start_log()?;
        ensure!(guest.write_by_messages(3 * PAGE)? == Outcome::Written, "stopped");
        equal("bound again", &guest.report_all()?, &[3])
    };
    served.explain(check())
}

/// A client that listens is told, and keeps the device until it has let go of it.
pub(crate) fn asks(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        let request = Interrupts::new(IrqKind::Intx, 1)?;
        guest
            .device()
            .client()
            .set_irqs(REQUEST, 0, 1, IrqAction::Connect(&request.fds()))?;
        guest.start_log()?;
        let unbinding = unbind(subject);
        ensure!(request.wait(0, PATIENCE) > 0, "the client is not told");
        guest.write_pages(&[3])?;
        equal("until it lets go", &guest.report_all()?, &[3])?;
        drop(guest);
        let unbound = unbinding.wait();
        bind(subject)?;
        unbound
    };
    served.explain(check())
}
