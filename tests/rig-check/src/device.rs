//! [`Device`]: a device of VFIO's, bound to an iommufd, and the engine that drives its DMA.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use iommufd_ioctls::IommuFd;
use vfio_ioctls::{VfioDevice, VfioIommufd};

use crate::engine::Engine;

/// VFIO's number of the PCI configuration space.
const CONFIG_REGION: u32 = 7;
/// Offset of the command register.
const COMMAND: u64 = 4;
/// Answers at its BARs, and masters the bus.
const MEMORY_AND_MASTER: u16 = 0b110;

/// A device that writes what it is told to.
pub(crate) struct Device {
    pub(crate) iommufd: Arc<IommuFd>,
    pub(crate) vfio: Arc<VfioDevice>,
    /// What the iommufd calls it.
    pub(crate) id: u32,
    pub(crate) engine: Engine,
}

impl Device {
    /// Binds the device at `path` to the iommufd.
    pub(crate) fn open(iommufd: &Path, path: &Path) -> Result<Self> {
        let open = |path: &Path| {
            let opened = File::options().read(true).write(true).open(path);
            opened.with_context(|| format!("cannot open {}", path.display()))
        };
        let iommufd = Arc::new(IommuFd::new_from_fd(open(iommufd)?));
        let container = VfioIommufd::new(iommufd.clone(), None, None).context("cannot use the iommufd")?;
        let vfio = VfioDevice::new_from_fd(open(path)?, Arc::new(container), false)
            .with_context(|| format!("cannot bind {} to the iommufd", path.display()))?;
        let vfio = Arc::new(vfio);
        let id = vfio
            .iommufd_dev_id()
            .context("the iommufd has no name for the device")?;
        master_the_bus(&vfio);
        let engine = Engine::of(&vfio)?;
        Ok(Self {
            iommufd,
            vfio,
            id,
            engine,
        })
    }
}

/// The character device of the PCI device at `address`, which a driver of VFIO's has.
pub(crate) fn path_of(address: &str) -> Result<PathBuf> {
    let folder = Path::new("/sys/bus/pci/devices").join(address).join("vfio-dev");
    let mut names = fs::read_dir(&folder)
        .with_context(|| format!("no {}: is the device bound to vfio-pci?", folder.display()))?;
    let name = names
        .next()
        .context("the device has no character device")??
        .file_name();
    ensure!(names.next().is_none(), "{} has several entries", folder.display());
    Ok(Path::new("/dev/vfio/devices").join(name))
}

/// VFIO takes this from a device when it is opened.
fn master_the_bus(vfio: &VfioDevice) {
    let mut command = [0; 2];
    vfio.region_read(CONFIG_REGION, &mut command, COMMAND);
    let command = u16::from_le_bytes(command) | MEMORY_AND_MASTER;
    vfio.region_write(CONFIG_REGION, &command.to_le_bytes(), COMMAND);
}

/// The vendor's and the device's number in the PCI configuration space.
pub(crate) fn pci_id(vfio: &VfioDevice) -> (u16, u16) {
    let mut id = [0; 4];
    vfio.region_read(CONFIG_REGION, &mut id, 0);
    let [a, b, c, d] = id;
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}
