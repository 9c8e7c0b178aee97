//! Devices of the kernel's VFIO, passed through to a vfio-user client.
//!
//! | module | what it is |
//! |---|---|
//! | `kernel` | the calls of VFIO, as traits |
//! | `sys` | those calls of the kernel that this process runs on |
//! | `find` | from a PCI address to an open device, and what is wrong if there is none |
//! | `iommu`, `memory` | a VM's iommufd, and the address space that its devices share |
//! | `mappings` | what one connection has mapped |
//! | `regions`, `msix` | BARs and config space, by message and by mapping |
//! | `interrupts` | the client's eventfds, given to the kernel |
//! | `migration`, `stream` | the driver's migration, passed on |
//! | `device` | all of it together, for one connection |
//!
//! What is passed through costs nothing of this process's on the way: mapped BARs, DMA and interrupts go between the guest, the device
//! and the kernel. What this process adds is the dirty log: the device is attached to the VM's
//! [`Ioas`] beside its emulated devices, with the tracker that was selected for it.
//!
//! Not here: finding out what a tracker says (`pagetrail-tracker`), the wire (`session`), and what only a VMM can do: routing
//! interrupts into the guest, and emulating the registers that VFIO's users are to emulate.

mod device;
mod find;
mod interrupts;
mod iommu;
mod kernel;
mod mappings;
mod memory;
mod migration;
#[cfg(test)]
mod model;
mod msix;
mod regions;
mod stream;
mod sys;

pub(crate) use device::Passthrough;
pub use find::{OpenError, Source};
pub use iommu::HostIommu;
pub use pagetrail_tracker::{Leaves, WithoutTracker};
pub use regions::BarAccess;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use iommufd_ioctls::IommuFd;
use pagetrail_tracker::{AttachedDevice, Candidate, DeviceKind, DeviceTracker, Ioas};

use kernel::Device;
use regions::Regions;
use sys::Cdev;

/// A device of the kernel's, and how it is to be served.
#[derive(Clone)]
pub struct PassthroughConfig {
    /// Which device.
    pub source: Source,
    /// The IOMMUs of its VM.
    pub iommu: Arc<HostIommu>,
    /// How the client reaches its BARs.
    pub bars: BarAccess,
    /// Which trackers may track what it writes.
    pub trackers: TrackerChoice,
    /// What to do if nothing tracks what it writes.
    pub without_tracker: WithoutTracker,
}

/// Which trackers a device is selected one from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrackerChoice {
    /// The IOMMU's if there is one, or else the device's own.
    #[default]
    Any,
    /// The IOMMU's alone.
    Iommu,
    /// The device's own alone.
    Device,
}

/// Which trackers are looked for. To find out what a device can do takes its driver a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inquiry {
    /// All, to be explained.
    Everything,
    /// Those that the choice depends on, while a client waits.
    Needed,
}

impl PassthroughConfig {
    /// What the device is to its VM's dirty log.
    fn kind(&self, attached: &AttachedDevice, cdev: &Arc<Cdev>, inquiry: Inquiry) -> DeviceKind {
        let unwanted = || Candidate::Missing("it was not to be used".into());
        let iommu = || attached.candidate();
        let device = || DeviceTracker::candidate_of(Box::new(sys::Log(Arc::clone(cdev))));
        let (page_table_tracker, device_tracker) = match self.trackers {
            TrackerChoice::Any if inquiry == Inquiry::Needed && attached.tracker().is_some() => {
                let reason = "not asked for, since its page table has one";
                (iommu(), Candidate::Missing(reason.into()))
            }
            TrackerChoice::Any => (iommu(), device()),
            TrackerChoice::Iommu => (iommu(), unwanted()),
            TrackerChoice::Device => (unwanted(), device()),
        };
        DeviceKind::Passthrough {
            page_table_tracker,
            device_tracker,
            without_tracker: self.without_tracker,
        }
    }
}

/// A device of the kernel's that is served, to one client after the other.
///
/// It is opened anew for each client: that way nothing of the last one is left, and nobody who has the last one's file can reach
/// it any more. Without a client the host has it.
pub struct PassthroughModel {
    config: PassthroughConfig,
    /// As text: the thing itself has trackers, and with them the device.
    explanation: String,
}

/// A device that this process has.
struct Opened {
    cdev: Arc<Cdev>,
    path: PathBuf,
    /// What it is bound to.
    iommufd: Arc<IommuFd>,
}

impl PassthroughModel {
    /// Opens the device and attaches it for a moment, to learn whether it can be served, and what tracks it.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(config: PassthroughConfig) -> Result<Arc<Self>, OpenError> {
        let opened = open(&config)?;
        let explanation = try_out(&config, &opened)?;
        Ok(Arc::new(Self { config, explanation }))
    }

    /// What tracks the device, and why: a line for each candidate.
    pub fn explanation(&self) -> &str {
        &self.explanation
    }

    /// The device, for the next client.
    fn take(&self) -> Result<Opened, OpenError> {
        open(&self.config)
    }
}

impl fmt::Debug for PassthroughModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassthroughModel")
            .field("source", &self.config.source)
            .finish_non_exhaustive()
    }
}

fn open(config: &PassthroughConfig) -> Result<Opened, OpenError> {
    let path = find::path(&config.source)?;
    let iommufd = config.iommu.iommufd()?;
    let cdev = Arc::new(find::bind(&path, &iommufd)?);
    let info = cdev.info();
    let info = info.map_err(|source| OpenError::system("ask what it is", &path, source))?;
    if !info.flags.contains(crate::wire::region::DeviceFlags::PCI) {
        return Err(OpenError::NotPci(path));
    }
    Ok(Opened { cdev, path, iommufd })
}

/// Attaches the device to an address space of its own.
fn try_out(config: &PassthroughConfig, opened: &Opened) -> Result<String, OpenError> {
    let device: &dyn Device = &*opened.cdev;
    let described = Regions::of(device, config.bars);
    described.map_err(|source| OpenError::system("ask for the regions of", &opened.path, source))?;
    let space = config.iommu.new_space(&opened.iommufd)?;
    let attached = space
        .attach(opened.cdev.clone(), opened.cdev.iommufd_id())
        .map_err(|source| OpenError::of_attach(&opened.path, source))?;
    let kind = config.kind(&attached, &opened.cdev, Inquiry::Everything);
    let selected = Ioas::new().attach(kind, &config.source.to_string());
    let selected =
        selected.map_err(|error| OpenError::system("track", &opened.path, std::io::Error::other(error)))?;
    Ok(selected.explanation().to_string())
}
