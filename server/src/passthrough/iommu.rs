//! [`HostIommu`]: the iommufd of a VM, and the address space that its passthrough devices share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use iommufd_ioctls::IommuFd;
use pagetrail_tracker::{IommuError, KernelIoas, Leaves};
use parking_lot::Mutex;

use super::OpenError;
use super::memory::VmMemory;

/// The host's IOMMUs for the devices of one VM, by a file of their own.
///
/// Its iommufd and their address space are made when the first of them has a client, and go with the last client: the next one finds
/// another iommufd. Who has kept a device's file can attach the device to any address space of the iommufd that it is bound to.
pub struct HostIommu {
    path: PathBuf,
    leaves: Leaves,
    current: Mutex<Current>,
}

/// What there is as long as somebody has it.
#[derive(Default)]
struct Current {
    iommufd: Weak<IommuFd>,
    shared: Weak<Shared>,
}

/// An address space and what is mapped in it.
pub(super) struct Shared {
    pub(super) space: Arc<KernelIoas>,
    pub(super) memory: Arc<VmMemory>,
}

impl HostIommu {
    /// Where the iommufd is.
    pub const PATH: &str = "/dev/iommu";

    /// The iommufd for one VM, which can be opened now. Page tables have entries as `leaves` says.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the kernel has none or does not give it away.
    pub fn open(path: &Path, leaves: Leaves) -> Result<Arc<Self>, OpenError> {
        open(path)?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            leaves,
            current: Mutex::default(),
        }))
    }

    /// The iommufd of the VM's clients.
    pub(super) fn iommufd(&self) -> Result<Arc<IommuFd>, OpenError> {
        let mut current = self.current.lock();
        if let Some(iommufd) = current.iommufd.upgrade() {
            return Ok(iommufd);
        }
        let iommufd = Arc::new(open(&self.path)?);
        current.iommufd = Arc::downgrade(&iommufd);
        Ok(iommufd)
    }

    /// An address space of its own, in `iommufd`.
    pub(super) fn new_space(&self, iommufd: &Arc<IommuFd>) -> Result<KernelIoas, IommuError> {
        KernelIoas::new(Arc::clone(iommufd), self.leaves)
    }

    /// The address space of the VM's clients, in their `iommufd`.
    pub(super) fn shared(&self, iommufd: &Arc<IommuFd>) -> Result<Arc<Shared>, IommuError> {
        let mut current = self.current.lock();
        if let Some(shared) = current.shared.upgrade() {
            return Ok(shared);
        }
        let space = Arc::new(self.new_space(iommufd)?);
        let memory = Arc::new(VmMemory::new(Arc::clone(&space) as _));
        let shared = Arc::new(Shared { space, memory });
        current.shared = Arc::downgrade(&shared);
        Ok(shared)
    }
}

fn open(path: &Path) -> Result<IommuFd, OpenError> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|source| OpenError::of_iommufd(path, source))?;
    Ok(IommuFd::new_from_fd(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_clients_have_another_iommufd_than_the_last_ones() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let iommu = HostIommu::open(file.path(), Leaves::Small).unwrap();
        let (one, other) = (iommu.iommufd().unwrap(), iommu.iommufd().unwrap());
        assert!(Arc::ptr_eq(&one, &other), "devices of one VM share it");
        file.close().unwrap();
        iommu.iommufd().expect("it is open");
        drop((one, other));
        let missing = iommu.iommufd().err();
        assert!(
            matches!(missing, Some(OpenError::NoIommufd(_))),
            "it was opened anew"
        );
    }
}
