//! Runs devices: listens, gives each client a thread, and keeps the devices of one VM together.
//!
//! One thread listens for each device, and one serves each connection, so that a wait in one device never holds up another.
//! The devices of one VM share its [`Ioas`](pagetrail_tracker::Ioas), and one process at a time may be their client.
//!
//! Not here: what is said on a connection (`session`), and where the configuration comes from (`cli`).

mod config;
mod device;
mod endpoint;
mod peer;
mod stop;
mod vm;

pub use config::{DeviceConfig, Endpoint, Model, VmConfig};
pub use endpoint::EndpointError;
pub use stop::Stop;

pub(crate) use peer::Peer;
pub(crate) use vm::{Binding, Vm};

use std::sync::Arc;
use std::thread::JoinHandle;

use endpoint::OpenEndpoint;

use crate::guest::Share;
use crate::session::Served;

/// The devices of one process, their sockets open.
pub struct Host {
    devices: Vec<device::DeviceServer>,
    stop: Stop,
}

/// Why a host could not start or run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A socket could not be opened.
    #[error("device {device}")]
    Endpoint {
        /// Name of the device.
        device: String,
        /// What is wrong with its socket.
        source: EndpointError,
    },
    /// The operating system refused a thread or an event.
    #[error("the operating system refused a thread or an event")]
    System(#[from] std::io::Error),
}

impl Host {
    /// Opens every socket. Clients can connect from here on, and are served once [`run`](Self::run) is called.
    ///
    /// # Errors
    ///
    /// [`HostError`]; no socket is left behind.
    pub fn new(vms: Vec<VmConfig>) -> Result<Self, HostError> {
        let stop = Stop::new()?;
        let mut devices = Vec::new();
        let count = vms.len();
        for config in vms {
            let vm = Arc::new(Vm::new(&config.name, Share::of_one_in(count)));
            for device in config.devices {
                let endpoint = OpenEndpoint::open(device.endpoint).map_err(|source| HostError::Endpoint {
                    device: device.name.clone(),
                    source,
                })?;
                let served = Served {
                    name: format!("{}/{}", config.name, device.name),
                    model: device.model,
                    files: device.files,
                    vm: Arc::clone(&vm),
                    #[cfg(feature = "fault-injection")]
                    faults: device.faults,
                };
                let seat = device::Seat {
                    served: Arc::new(served),
                };
                devices.push(device::DeviceServer {
                    seat,
                    endpoint,
                    stop: stop.clone(),
                });
            }
        }
        Ok(Self { devices, stop })
    }

    /// A handle that ends [`run`](Self::run).
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves clients until [`Stop::request`], or until the clients of all connected endpoints have gone. On a stop, messages that
    /// are being handled are answered, devices become quiescent and sockets are removed.
    ///
    /// # Errors
    ///
    /// [`HostError::System`] if a thread could not be started.
    pub fn run(self) -> Result<(), HostError> {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for device in self.devices {
            let thread = std::thread::Builder::new()
                .name(device.seat.served.name.clone())
                .spawn(move || device.run());
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stop.request();
                    join(threads);
                    return Err(error.into());
                }
            }
        }
        join(threads);
        Ok(())
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(device = name, "internal error: the device's thread panicked");
        }
    }
}
