//! From what a socket serves to the backend of one connection.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pagetrail_tracker::{Attachment, DeviceKind};

use super::Served;
use crate::backend::{Backend, Emulated, Parts};
use crate::device::{Bar, DeviceModel, DeviceSpec};
use crate::guest::DmaSpace;
use crate::host::{Binding, Model};
use crate::irq::Interrupts;
use crate::passthrough;
use crate::vfu::Connection;

/// A device for one connection, and what libvfio-user has to know of it.
pub(super) struct Opened {
    pub(super) backend: Box<dyn Backend>,
    pub(super) log: Arc<Attachment>,
    pub(super) spec: DeviceSpec,
    /// The memory behind the areas of its BARs that can be mapped.
    pub(super) bar_files: Vec<(Bar, OwnedFd)>,
}

/// A new device for the client at the other end of `socket`.
pub(super) fn open(served: &Served, binding: &Binding, socket: &OwnedFd) -> anyhow::Result<Opened> {
    match &served.model {
        Model::Emulated(model) => emulated(&**model, served, binding, socket),
        Model::Passthrough(model) => {
            let (backend, log) = passthrough::Passthrough::open(
                model,
                &served.name,
                served.files,
                served.vm.share().clone(),
                binding,
                Connection::of(socket)?,
            )?;
            Ok(Opened {
                backend: Box::new(backend),
                log,
                // The backend answers what libvfio-user would.
                spec: DeviceSpec::none(),
                bar_files: Vec::new(),
            })
        }
    }
}

fn emulated(
    model: &dyn DeviceModel,
    served: &Served,
    binding: &Binding,
    socket: &OwnedFd,
) -> anyhow::Result<Opened> {
    let spec = model.spec();
    let tracker = binding.ioas().software_tracker();
    let space = DmaSpace::new(tracker, served.files, served.vm.share().clone());
    let interrupts = Interrupts::new(spec.irqs);
    let log = Arc::new(binding.ioas().attach(DeviceKind::Emulated, &served.name)?);
    let built = model.build(space.dma(), interrupts.irq())?;
    let failing = Connection::of(socket)?;
    space.on_memory_failure(Box::new(move || failing.close()));
    #[cfg(feature = "fault-injection")]
    super::faults::inject(&served.faults, &space, binding);
    let backend = Emulated::start(Parts {
        name: served.name.clone(),
        device: built.device,
        space,
        interrupts,
        log: Arc::clone(&log),
    });
    Ok(Opened {
        backend: Box::new(backend),
        log,
        spec,
        bar_files: built.bar_files,
    })
}
