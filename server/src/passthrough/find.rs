//! Finding a device's character device, and saying what is wrong when there is none that can be used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use iommufd_ioctls::IommuFd;
use pagetrail_tracker::IommuError;
use rustix::io::Errno;

use super::sys::Cdev;

/// How a device is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// By its character device, `/dev/vfio/devices/vfioN`.
    Cdev(PathBuf),
    /// By its PCI address, `0000:01:00.0`.
    Pci(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cdev(path) => path.display().fmt(f),
            Self::Pci(address) => f.write_str(address),
        }
    }
}

/// Why a device cannot be served, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No iommufd.
    #[error(
        "there is no {0}: load the kernel's iommufd (modprobe iommufd); it takes Linux 6.6 with CONFIG_IOMMUFD and \
         CONFIG_VFIO_DEVICE_CDEV"
    )]
    NoIommufd(PathBuf),
    /// Not for this user.
    #[error("no permission for {0}: run as its owner, or give this user access with a udev rule")]
    NoPermission(PathBuf),
    /// The text is no address.
    #[error("{0:?} is not a PCI address: write it as lspci -D does, for example 0000:01:00.0")]
    BadAddress(String),
    /// No such device.
    #[error("there is no PCI device {0}: lspci -D lists them")]
    NoDevice(String),
    /// The device has no character device of VFIO's, since another driver has it.
    #[error(
        "PCI device {address} is not bound to a driver of VFIO's but to {driver}: unbind it, write vfio-pci (or the driver that \
         migrates it, for example mlx5_vfio_pci) to /sys/bus/pci/devices/{address}/driver_override, and its address to \
         /sys/bus/pci/drivers_probe"
    )]
    NotVfio {
        /// Its address.
        address: String,
        /// What it is bound to.
        driver: String,
    },
    /// A driver of VFIO's has it, and there is no character device.
    #[error(
        "PCI device {0} has no character device though {1} has it: the kernel is older than 6.6 or made without \
         CONFIG_VFIO_DEVICE_CDEV"
    )]
    NoCdev(String, String),
    /// No such file.
    #[error(
        "there is no {0}: bind the device to vfio-pci, and see /sys/bus/pci/devices/ADDRESS/vfio-dev for its name; a kernel \
         older than 6.6 or without CONFIG_VFIO_DEVICE_CDEV has none"
    )]
    NoFile(PathBuf),
    /// The file is something else.
    #[error("{0} is not a device of VFIO's: name a file like /dev/vfio/devices/vfio0")]
    NotADevice(PathBuf),
    /// Somebody else has it.
    #[error(
        "{0} is in use: another process has opened it, or its group by /dev/vfio/NUMBER (fuser -v shows which); a client \
         that still has a BAR mapped counts, too"
    )]
    InUse(PathBuf),
    /// It is not a PCI device.
    #[error("{0} is not a PCI device")]
    NotPci(PathBuf),
    /// The platform does not keep devices' interrupts apart.
    #[error(
        "the kernel does not hand {0} out, because it could forge interrupts: switch interrupt remapping on (firmware, \
         intremap), or accept that with allow_unsafe_interrupts=1 for the module iommufd"
    )]
    UnsafeInterrupts(PathBuf),
    /// The device cannot have a page table.
    #[error(
        "{path} has no IOMMU that it could be given a page table of: is it switched on (intel_iommu=on, firmware)?"
    )]
    NoIommu {
        /// The device.
        path: PathBuf,
        /// What the kernel said.
        source: IommuError,
    },
    /// The kernel lacks a call.
    #[error("the kernel cannot attach {0} to an address space: it takes Linux 6.6")]
    OldKernel(PathBuf),
    /// Something else.
    #[error("cannot {step} {path}")]
    System {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address space cannot be made.
    #[error(transparent)]
    Iommu(#[from] IommuError),
}

impl OpenError {
    pub(super) fn of_iommufd(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoIommufd(path),
            io::ErrorKind::PermissionDenied => Self::NoPermission(path),
            // The node is there, and nothing behind it.
            _ if Errno::from_io_error(&source) == Some(Errno::NODEV) => Self::NoIommufd(path),
            _ => Self::system("open", &path, source),
        }
    }

    /// Why the file at `path` is not opened.
    fn of_open(path: &Path, source: io::Error) -> Self {
        let owned = path.to_owned();
        match (source.kind(), Errno::from_io_error(&source)) {
            (io::ErrorKind::NotFound, _) | (_, Some(Errno::NODEV | Errno::NXIO)) => Self::NoFile(owned),
            (io::ErrorKind::PermissionDenied, _) => Self::NoPermission(owned),
            _ => Self::system("open", path, source),
        }
    }

    /// Why what is behind the file at `path` is not bound to an iommufd.
    fn of_bind(path: &Path, source: io::Error) -> Self {
        let owned = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::NOTTY) => Self::NotADevice(owned),
            // Of a device that is bound already, the kernel says EINVAL; of one whose group is in use, EBUSY.
            Some(Errno::BUSY | Errno::INVAL) => Self::InUse(owned),
            Some(Errno::PERM) => Self::UnsafeInterrupts(owned),
            _ => Self::system("bind to the iommufd", path, source),
        }
    }

    /// Why the device at `path` is not attached to an address space.
    pub(super) fn of_attach(path: &Path, source: IommuError) -> Self {
        let path = path.to_owned();
        let IommuError::Attach(error) = &source else {
            return Self::Iommu(source);
        };
        match Errno::from_io_error(error) {
            Some(Errno::PERM) => Self::UnsafeInterrupts(path),
            Some(Errno::BUSY) => Self::InUse(path),
            Some(Errno::NOTTY) => Self::OldKernel(path),
            Some(Errno::NODEV | Errno::INVAL) => Self::NoIommu { path, source },
            _ => Self::Iommu(source),
        }
    }

    pub(super) fn system(step: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::System { step, path, source }
    }
}

/// Where the devices of a machine are listed.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// The character device of `source`.
pub(super) fn path(source: &Source) -> Result<PathBuf, OpenError> {
    match source {
        Source::Cdev(path) => Ok(path.clone()),
        Source::Pci(address) => path_of_pci(Path::new(PCI_DEVICES), address),
    }
}

fn path_of_pci(devices: &Path, address: &str) -> Result<PathBuf, OpenError> {
    if !is_address(address) {
        return Err(OpenError::BadAddress(address.to_owned()));
    }
    let device = devices.join(address);
    if !device.exists() {
        return Err(OpenError::NoDevice(address.to_owned()));
    }
    let driver = fs::read_link(device.join("driver")).ok();
    let driver = driver
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "no driver".to_owned());
    let name = fs::read_dir(device.join("vfio-dev"))
        .ok()
        .and_then(|mut names| names.next()?.ok());
    match name {
        Some(name) => Ok(Path::new("/dev/vfio/devices").join(name.file_name())),
        None if driver.contains("vfio") => Err(OpenError::NoCdev(address.to_owned(), driver)),
        None => Err(OpenError::NotVfio {
            address: address.to_owned(),
            driver,
        }),
    }
}

/// Whether it looks like `0000:01:00.0`.
fn is_address(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some((place, function)) = text.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = place.split(':').collect();
    let [domain, bus, slot] = parts[..] else {
        return false;
    };
    let has_lengths = (4..=8).contains(&domain.len()) && bus.len() == 2 && slot.len() == 2;
    has_lengths && parts.into_iter().all(is_hex) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

/// Opens the device at `path` and binds it to `iommufd`.
pub(super) fn bind(path: &Path, iommufd: &IommuFd) -> Result<Cdev, OpenError> {
    // Looked at before it is opened, since to open some files has effects.
    let metadata = fs::metadata(path).map_err(|source| OpenError::of_open(path, source))?;
    if !metadata.file_type().is_char_device() {
        return Err(OpenError::NotADevice(path.to_owned()));
    }
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|source| OpenError::of_open(path, source))?;
    Cdev::bind(file, iommufd).map_err(|source| OpenError::of_bind(path, source))
}

#[cfg(test)]
mod tests;
