//! One client's connection: every message that Rust answers, in the order in which it came.
//!
//! A session takes messages apart and puts replies together. What they act on is its [`Backend`], which owns the device and all that
//! belongs to the connection: mappings, eventfds, the migration; the DMA log is the VM's. They end with the session. It runs on one
//! thread; an emulated device's own threads run beside it and see only their [`Dma`](crate::guest::Dma) and
//! [`Irq`](crate::irq::Irq) handles.
//!
//! What the wire says where the specification is silent: `docs/src/protocol.md`.

mod dispatch;
#[cfg(feature = "fault-injection")]
mod faults;
mod features;
mod irqs;
mod logging;
mod mappings;
mod open;
#[cfg(test)]
mod tests;
mod unconfirmed;
mod version;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pagetrail_tracker::Attachment;
use rustix::io::Errno;

use crate::backend::Backend;
use crate::device::DeviceSpec;
use crate::guest::AllowedFiles;
use crate::host::{Binding, Model, Peer, Vm};
use crate::vfu::{Connection, Context};
use unconfirmed::Unconfirmed;

/// How long a message of a client may take to arrive, and a reply to be read.
const DEADLINE: Duration = Duration::from_secs(5);

/// The same for a client that is refused: whoever listens for the next one waits as long.
const REFUSAL_DEADLINE: Duration = Duration::from_millis(500);

/// A device and its connection.
pub(crate) struct Session {
    name: String,
    backend: Box<dyn Backend>,
    log: Arc<Attachment>,
    connection: Connection,
    unconfirmed: Unconfirmed,
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
    pub(crate) model: Model,
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
    let opened = open::open(served, &binding, &socket)?;
    let session = Arc::new(Session {
        name: served.name.clone(),
        backend: opened.backend,
        log: opened.log,
        connection: Connection::of(&socket)?,
        unconfirmed: Unconfirmed::default(),
        #[cfg(feature = "fault-injection")]
        broken: faults::Broken::by(&served.faults),
        _binding: binding,
    });
    let served = Context::new(&opened.spec, &opened.bar_files, Box::new(Arc::clone(&session)))
        .and_then(|context| context.attach(socket, DEADLINE).and_then(|()| context.run()));
    session.end();
    Ok(served?)
}

impl Session {
    /// Stops the device, and gives back what its client may not have learnt. What is left is dropped with the session.
    fn end(&self) {
        self.backend.end();
        self.put_back_reports();
    }
}
