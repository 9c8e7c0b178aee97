//! [`Device`]: a device of VFIO's, bound to an iommufd, and the engine that drives its DMA.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use iommufd_ioctls::IommuFd;
use pagetrail_rig_devices::{Completions, Engine, Kind, Limits};
use pagetrail_tracker::{AttachedDevice, IovaRange, KernelIoas};
use vfio_ioctls::{VfioDevice, VfioIommufd};

use crate::registers::Bar;
use crate::scratch::OwnMemory;
use crate::space::bytes;

/// A device that writes what it is told to.
pub(crate) struct Device {
    pub(crate) iommufd: Arc<IommuFd>,
    pub(crate) vfio: Arc<VfioDevice>,
    /// What the iommufd calls it.
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    driver: Mutex<Driver>,
    own_memory: OwnMemory,
}

/// It does one thing at a time.
struct Driver {
    engine: Box<dyn Engine>,
    bar: Bar,
}

impl Device {
    /// Binds the PCI device at `address`, which a driver of VFIO's has, to the iommufd. It is the device so numbered.
    pub(crate) fn open(iommufd: &Arc<IommuFd>, address: &str, number: usize) -> Result<Self> {
        let (vfio, id) = bind(iommufd, address)?;
        let bar = Bar::of(&vfio);
        let kind = Kind::of(bar.pci_id())?;
        let driver = Driver {
            engine: kind.engine(Completions::Quiet),
            bar,
        };
        Ok(Self {
            iommufd: iommufd.clone(),
            vfio,
            id,
            kind,
            driver: Mutex::new(driver),
            own_memory: OwnMemory::new(number)?,
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.kind.limits()
    }

    /// Brings it into an address space that it has not been in, ready to be driven.
    pub(crate) fn join(&self, ioas: &KernelIoas) -> Result<AttachedDevice> {
        let attached = ioas.attach(self.vfio.clone(), self.id)?;
        self.own_memory.map(ioas)?;
        let Driver { engine, bar } = &mut *self.driver();
        engine
            .begin(bar, &self.own_memory.scratch())
            .with_context(|| format!("{} does not begin", self.kind))?;
        Ok(attached)
    }

    /// Writes ranges, as [`Engine::write`] does. Memory says what became of them.
    pub(crate) fn write(&self, ranges: &[Range<u64>]) -> Result<()> {
        let Driver { engine, bar } = &mut *self.driver();
        engine.write(bar, ranges)?;
        Ok(())
    }

    pub(crate) fn read(&self, range: IovaRange) -> Result<()> {
        let Driver { engine, bar } = &mut *self.driver();
        engine.read(bar, bytes(range))
    }

    fn driver(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds the PCI device at `address` to the iommufd, which has a name for it then.
pub(crate) fn bind(iommufd: &Arc<IommuFd>, address: &str) -> Result<(Arc<VfioDevice>, u32)> {
    let path = path_of(address)?;
    let container = VfioIommufd::new(iommufd.clone(), None, None).context("cannot use the iommufd")?;
    let vfio = VfioDevice::new_from_fd(open(&path)?, Arc::new(container), false)
        .with_context(|| format!("cannot bind {} to the iommufd", path.display()))?;
    let id = vfio
        .iommufd_dev_id()
        .context("the iommufd has no name for the device")?;
    Ok((Arc::new(vfio), id))
}

pub(crate) fn open(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// The character device of the PCI device at `address`.
fn path_of(address: &str) -> Result<PathBuf> {
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
