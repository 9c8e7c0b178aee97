//! From a configuration to a running host, and to its end.

use anyhow::Context;
use pagetrail::guest::AllowedFiles;
use pagetrail::host::{DeviceConfig, Endpoint, Host, VmConfig};
use sd_notify::NotifyState;

use super::args::{DmaArgs, EndpointArgs};
use super::inherited::{self, Activation};
use super::models;
use super::signals::StopSignals;

/// A VM with the one device of `pagetrail dma`.
///
/// # Errors
///
/// When there is no socket for it.
pub(super) fn single_device(args: &DmaArgs) -> anyhow::Result<VmConfig> {
    let device = DeviceConfig {
        name: "dma".to_owned(),
        model: models::dma(args.workers)?,
        endpoint: single_endpoint(&args.endpoint)?,
        files: allowed_files(args.allow_any_file),
        #[cfg(feature = "fault-injection")]
        faults: args.faults.clone(),
    };
    Ok(VmConfig {
        name: "vm".to_owned(),
        devices: vec![device],
    })
}

fn single_endpoint(args: &EndpointArgs) -> anyhow::Result<Endpoint> {
    match (&args.socket_path, args.fd) {
        (Some(path), _) => Ok(Endpoint::Path(path.clone())),
        (None, Some(fd)) => inherited::endpoint(fd),
        (None, None) => Activation::from_environment()?.take_only(),
    }
}

/// What a user's `allow-any-file` means.
pub(super) fn allowed_files(any: bool) -> AllowedFiles {
    if any {
        AllowedFiles::Any
    } else {
        AllowedFiles::TmpfsAndHugetlbfs
    }
}

/// Runs the devices until a stop signal, or until the last client that came connected has gone.
///
/// # Errors
///
/// When a socket cannot be opened, or the system refuses threads or signals.
pub(super) fn run(vms: Vec<VmConfig>) -> anyhow::Result<()> {
    let devices: usize = vms.iter().map(|vm| vm.devices.len()).sum();
    let signals = StopSignals::catch()?;
    let host = Host::new(vms).context("cannot start")?;
    signals.stop_on_arrival(host.stop())?;
    notify(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving {devices} devices")),
    ]);
    tracing::info!(devices, "ready");
    host.run().context("cannot go on")?;
    tracing::info!("stopped");
    Ok(())
}

/// Tells the service manager, when there is one.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
