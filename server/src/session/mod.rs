//! One client's connection: every message that Rust answers, in the order in which it came.
//!
//! A session owns a device and all that belongs to its connection: mappings, eventfds, the DMA log, the migration. They end
//! with it. It runs on one thread; the device's own threads run beside it and see only their
//! [`Dma`](crate::guest::Dma) and [`Irq`](crate::irq::Irq) handles.
//!
//! What the wire says where the specification is silent: `docs/src/protocol.md`.

mod control;
mod dispatch;
#[cfg(feature = "fault-injection")]
mod faults;
mod features;
mod irqs;
mod logging;
mod mappings;
#[cfg(test)]
mod tests;
mod unconfirmed;
mod version;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::{Attachment, DeviceKind};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::device::{Device, DeviceModel, DeviceSpec};
use crate::guest::{AllowedFiles, DmaSpace};
use crate::host::{Binding, Peer, Vm};
use crate::irq::Interrupts;
use crate::migration::{Migration, Target};
use crate::vfu::{Connection, Context};
use unconfirmed::Unconfirmed;

/// How long work in flight may take to stop. Shorter than the 5 s after which QEMU gives a message up.
const QUIESCE_LIMIT: Duration = Duration::from_secs(3);

/// How long a message of a client may take to arrive, and a reply to be read.
const DEADLINE: Duration = Duration::from_secs(5);

/// The same for a client that is refused: whoever listens for the next one waits as long.
const REFUSAL_DEADLINE: Duration = Duration::from_millis(500);

/// A device and its connection.
pub(crate) struct Session {
    name: String,
    device: Arc<dyn Device>,
    space: DmaSpace,
    interrupts: Interrupts,
    log: Attachment,
    connection: Connection,
    unconfirmed: Unconfirmed,
    migration: Mutex<Migration>,
    #[cfg(feature = "fault-injection")]
    broken: faults::Broken,
    // Dropped last: the VM stays bound to the client's process as long as anything of it is left.
    _binding: Binding,
}

/// A device that can be served, to one client after the other.
pub(crate) struct Served {
    /// Name, for logs.
    pub(crate) name: String,
    /// What is served.
    pub(crate) model: Arc<dyn DeviceModel>,
    /// Files that guest memory may be in.
    pub(crate) files: AllowedFiles,
    /// The VM that it belongs to.
    pub(crate) vm: Arc<Vm>,
    /// Ways in which it is broken on purpose.
    #[cfg(feature = "fault-injection")]
    pub(crate) faults: Vec<crate::fault::Fault>,
}

/// Serves a client until it leaves.
pub(crate) fn serve(socket: OwnedFd, served: &Served) {
    let name = &served.name;
    let (peer, connection) = match Peer::of(&socket).and_then(|peer| Ok((peer, Connection::of(&socket)?))) {
        Ok(client) => client,
        Err(error) => return tracing::error!(device = name, %error, "cannot tell who the client is"),
    };
    let binding = match served.vm.bind(peer, connection) {
        Ok(binding) => binding,
        Err(error) => {
            tracing::warn!(device = name, %error, "refused a client");
            let errno = error.errno();
            return refuse(socket, errno);
        }
    };
    tracing::info!(device = name, ?peer, "client connected");
    match run(socket, served, binding) {
        Ok(()) => tracing::info!(device = name, "client left"),
        Err(error) => tracing::error!(device = name, error = format!("{error:#}"), "client dropped"),
    }
}

/// Answers a client's VERSION with an error.
pub(crate) fn refuse(socket: OwnedFd, errno: Errno) {
    let refusal = Context::new(&DeviceSpec::none(), &[], Box::new(version::Refusal(errno)));
    // Negotiation fails by design.
    let _ = refusal.and_then(|context| context.attach(socket, REFUSAL_DEADLINE));
}

fn run(socket: OwnedFd, served: &Served, binding: Binding) -> anyhow::Result<()> {
    let spec = served.model.spec();
    let space = DmaSpace::new(
        binding.ioas().software_tracker(),
        served.files,
        served.vm.share().clone(),
    );
    let interrupts = Interrupts::new(spec.irqs);
    let log = binding.ioas().attach(DeviceKind::Emulated, &served.name)?;
    let built = served.model.build(space.dma(), interrupts.irq())?;
    let (connection, failing) = (Connection::of(&socket)?, Connection::of(&socket)?);
    space.on_memory_failure(Box::new(move || failing.close()));
    #[cfg(feature = "fault-injection")]
    let broken = faults::inject(&served.faults, &space, &binding);
    let session = Arc::new(Session {
        name: served.name.clone(),
        device: built.device,
        space,
        interrupts,
        log,
        connection,
        unconfirmed: Unconfirmed::default(),
        migration: Mutex::new(Migration::new()),
        #[cfg(feature = "fault-injection")]
        broken,
        _binding: binding,
    });
    session.device.run();
    let served = Context::new(&spec, &built.bar_files, Box::new(Arc::clone(&session)))
        .and_then(|context| context.attach(socket, DEADLINE).and_then(|()| context.run()));
    session.end();
    Ok(served?)
}

impl Session {
    fn quiesce_deadline() -> Instant {
        Instant::now() + QUIESCE_LIMIT
    }

    /// Stops the device and takes its memory away, in that order, and gives back what its client may not have learnt. What is left
    /// is dropped with the session.
    fn end(&self) {
        if let Err(error) = Target::quiesce(self) {
            tracing::error!(device = self.name, %error, "the device still works after its client has gone");
        }
        if let Err(error) = self.space.unmap_all(Self::quiesce_deadline()) {
            tracing::error!(device = self.name, %error, "guest memory is still in use after the client has gone");
        }
        self.put_back_reports();
    }
}
