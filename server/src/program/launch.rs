//! From a configuration to a running host, and to its end.

use std::io;

use sd_notify::NotifyState;

use super::limits;
use super::signals::StopSignals;
use crate::host::{Host, HostError, VmConfig};

/// Why devices could not be served to the end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system has no descriptors or threads left for the signals.
    #[error("cannot catch SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
    /// A socket cannot be opened.
    #[error("cannot start")]
    Start(#[source] HostError),
    /// The system refuses a thread.
    #[error("cannot go on")]
    Run(#[source] HostError),
}

/// Runs the devices until SIGTERM or SIGINT, or until the last client that came connected has gone. The service manager is
/// told, when there is one.
///
/// # Errors
///
/// [`ServeError`].
pub fn serve(vms: Vec<VmConfig>) -> Result<(), ServeError> {
    limits::raise_open_files();
    let devices: usize = vms.iter().map(|vm| vm.devices.len()).sum();
    let signals = StopSignals::catch().map_err(ServeError::Signals)?;
    let host = Host::new(vms).map_err(ServeError::Start)?;
    signals
        .stop_on_arrival(host.stop())
        .map_err(ServeError::Signals)?;
    notify(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving {devices} devices")),
    ]);
    tracing::info!(devices, "ready");
    host.run().map_err(ServeError::Run)?;
    tracing::info!("stopped");
    Ok(())
}

/// Tells the service manager, when there is one.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
