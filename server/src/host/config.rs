//! What a host is made of.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::device::DeviceModel;
use crate::guest::AllowedFiles;
use crate::passthrough::PassthroughModel;

/// A VM: devices that share an address space.
pub struct VmConfig {
    /// Name, for logs.
    pub name: String,
    /// Its devices.
    pub devices: Vec<DeviceConfig>,
}

/// A device and where its client comes from.
pub struct DeviceConfig {
    /// Name, for logs.
    pub name: String,
    /// What is served.
    pub model: Model,
    /// Where its client comes from.
    pub endpoint: Endpoint,
    /// Files that guest memory may be in.
    pub files: AllowedFiles,
    /// Ways in which it is broken on purpose.
    #[cfg(feature = "fault-injection")]
    pub faults: Vec<crate::fault::Fault>,
}

/// What a socket serves.
#[derive(Clone)]
pub enum Model {
    /// A device of this process.
    Emulated(Arc<dyn DeviceModel>),
    /// A device of the kernel's VFIO, passed through.
    Passthrough(Arc<PassthroughModel>),
}

impl From<Arc<dyn DeviceModel>> for Model {
    fn from(model: Arc<dyn DeviceModel>) -> Self {
        Self::Emulated(model)
    }
}

impl From<Arc<PassthroughModel>> for Model {
    fn from(model: Arc<PassthroughModel>) -> Self {
        Self::Passthrough(model)
    }
}

/// Where a device's client comes from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket to make at this path, and to remove at the end. Clients come one after the other.
    Path(PathBuf),
    /// A socket that listens already. Clients come one after the other.
    Listener(OwnedFd),
    /// A client that is connected already; when it goes, the device is done.
    Connected(OwnedFd),
}
