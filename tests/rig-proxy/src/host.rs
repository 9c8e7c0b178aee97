//! The host takes the device back, as its administrator does by unbinding it from its driver.

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vfio_user_check::client::IrqAction;
use vfio_user_check::vmm::{Interrupts, IrqKind};

use crate::engine::Outcome;
use crate::guest::{Guest, PAGE, equal};
use crate::served::Served;
use crate::subject::Subject;

/// VFIO's number of the interrupt by which the host asks for the device.
const REQUEST: u32 = 4;

const PATIENCE: Duration = Duration::from_secs(30);

/// The host unbinds the device, which takes as long as it is in use.
fn unbind(subject: &Subject) -> JoinHandle<std::io::Result<()>> {
    let address = subject.address.clone();
    thread::spawn(move || fs::write(format!("/sys/bus/pci/devices/{address}/driver/unbind"), address))
}

/// And has the same driver take it again.
fn bind(subject: &Subject) -> Result<()> {
    fs::write("/sys/bus/pci/drivers_probe", &subject.address).context("the device is not bound again")
}

fn await_unbound(unbinding: JoinHandle<std::io::Result<()>>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !unbinding.is_finished() {
        ensure!(Instant::now() < deadline, "the host does not get the device back");
        thread::sleep(Duration::from_millis(5));
    }
    let unbound = unbinding.join().expect("it does not panic");
    unbound.context("the host does not unbind the device")
}

/// A client that does not listen for the host's wish is dropped, and one that comes while the device is gone is refused.
pub(crate) fn takes_back(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &["--no-bar-mmap"])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        let unbinding = unbind(subject);
        await_unbound(unbinding)?;
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
        let unbound = await_unbound(unbinding);
        bind(subject)?;
        unbound
    };
    served.explain(check())
}
