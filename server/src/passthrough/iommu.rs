//! [`HostIommu`]: the iommufd of a VM, and the address space that its passthrough devices share.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Weak};

use iommufd_ioctls::IommuFd;
use pagetrail_tracker::{IommuError, KernelIoas, Leaves};
use parking_lot::Mutex;

use super::OpenError;
use super::memory::VmMemory;

/// The host's IOMMUs for the devices of one VM, by a file of their own.
///
/// Their address space is made when the first of them has a client, and goes with the last client.
pub struct HostIommu {
    iommufd: Arc<IommuFd>,
    leaves: Leaves,
    current: Mutex<Weak<Shared>>,
}

/// An address space and what is mapped in it.
pub(super) struct Shared {
    pub(super) space: Arc<KernelIoas>,
    pub(super) memory: Arc<VmMemory>,
}

impl HostIommu {
    /// Where the iommufd is.
    pub const PATH: &str = "/dev/iommu";

    /// Opens the iommufd for one VM. Page tables have entries as `leaves` says.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the kernel has none or does not give it away.
    pub fn open(path: &Path, leaves: Leaves) -> Result<Arc<Self>, OpenError> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|source| OpenError::of_iommufd(path, source))?;
        Ok(Arc::new(Self {
            iommufd: Arc::new(IommuFd::new_from_fd(file)),
            leaves,
            current: Mutex::default(),
        }))
    }

    pub(super) fn iommufd(&self) -> &Arc<IommuFd> {
        &self.iommufd
    }

    /// An address space of its own.
    pub(super) fn new_space(&self) -> Result<KernelIoas, IommuError> {
        KernelIoas::new(Arc::clone(&self.iommufd), self.leaves)
    }

    /// The address space of the VM's clients.
    pub(super) fn shared(&self) -> Result<Arc<Shared>, IommuError> {
        let mut current = self.current.lock();
        if let Some(shared) = current.upgrade() {
            return Ok(shared);
        }
        let space = Arc::new(self.new_space()?);
        let memory = Arc::new(VmMemory::new(Arc::clone(&space) as _));
        let shared = Arc::new(Shared { space, memory });
        *current = Arc::downgrade(&shared);
        Ok(shared)
    }
}
