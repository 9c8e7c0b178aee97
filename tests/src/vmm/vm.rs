//! Several devices around one guest memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::device::Device;
use super::memory::{GuestMemory, MemoryError, Region};
use super::messages::MemoryMessages;
use crate::client;

/// Why something went wrong, and at which device.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A device's server refused or failed.
    #[error("{device}: while {doing}")]
    Device {
        /// The device.
        device: String,
        /// What was being done.
        doing: &'static str,
        /// What happened.
        source: client::Error,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A VM: guest memory and the devices that may write to it, one connection each.
pub struct Vm {
    memory: Arc<GuestMemory>,
    devices: Vec<Device>,
}

impl Vm {
    /// Connects a device for each path and gives it all of `memory`.
    ///
    /// # Errors
    ///
    /// A device that cannot be reached, or that refuses the memory.
    pub fn connect(paths: &[PathBuf], memory: Arc<GuestMemory>) -> Result<Self, VmError> {
        let mut vm = Self {
            memory,
            devices: Vec::with_capacity(paths.len()),
        };
        for path in paths {
            vm.add_device(path)?;
        }
        Ok(vm)
    }

    /// Connects one more device and gives it all memory.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn add_device(&mut self, path: &Path) -> Result<(), VmError> {
        let name = path.display().to_string();
        let connected = Device::connect(path).map_err(|source| VmError::Device {
            device: name,
            doing: "connecting",
            source,
        });
        self.adopt(connected?)
    }

    /// A VM of devices that are connected already; each gets all of `memory`.
    ///
    /// # Errors
    ///
    /// A device that refuses the memory.
    pub fn of(devices: Vec<Device>, memory: Arc<GuestMemory>) -> Result<Self, VmError> {
        let mut vm = Self {
            memory,
            devices: Vec::with_capacity(devices.len()),
        };
        devices.into_iter().try_for_each(|device| vm.adopt(device))?;
        Ok(vm)
    }

    fn adopt(&mut self, mut device: Device) -> Result<(), VmError> {
        device
            .client()
            .set_server_requests(Box::new(MemoryMessages(Arc::clone(&self.memory))));
        self.devices.push(device);
        let memory = Arc::clone(&self.memory);
        let index = self.devices.len() - 1;
        self.with(index, "mapping guest memory", |device| {
            memory
                .regions()
                .iter()
                .try_for_each(|region| region.map_into(device.client()))
        })
    }

    /// The guest memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The devices.
    pub fn devices(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    /// A device to look at.
    pub fn device(&self, index: usize) -> Option<&Device> {
        self.devices.get(index)
    }

    /// How many devices there are.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// Sets how long each request may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        for device in &mut self.devices {
            device.client().set_timeout(timeout);
        }
    }

    /// Does something with one device; its name and `doing` go into an error.
    ///
    /// # Errors
    ///
    /// [`VmError::Device`].
    pub fn with<T>(
        &mut self,
        index: usize,
        doing: &'static str,
        action: impl FnOnce(&mut Device) -> client::Result<T>,
    ) -> Result<T, VmError> {
        let device = &mut self.devices[index];
        action(device).map_err(|source| VmError::Device {
            device: device.name().to_owned(),
            doing,
            source,
        })
    }

    /// Does something with every device in turn and stops at the first that fails.
    ///
    /// # Errors
    ///
    /// [`VmError::Device`].
    pub fn each<T>(
        &mut self,
        doing: &'static str,
        mut action: impl FnMut(&mut Device) -> client::Result<T>,
    ) -> Result<Vec<T>, VmError> {
        (0..self.devices.len())
            .map(|index| self.with(index, doing, &mut action))
            .collect()
    }

    /// Enables every device, and connects its best interrupts.
    ///
    /// # Errors
    ///
    /// [`VmError::Device`].
    pub fn enable_devices(&mut self) -> Result<(), VmError> {
        self.each("enabling the device", |device| {
            device.enable()?;
            match device.best_interrupt()? {
                Some(kind) => device.connect_interrupts(kind),
                None => Ok(()),
            }
        })
        .map(drop)
    }

    /// Plugs memory in: every device gets it.
    ///
    /// # Errors
    ///
    /// [`VmError::Device`].
    pub fn plug_memory(&mut self, region: Region) -> Result<Arc<Region>, VmError> {
        let region = self.memory.add(region);
        self.each("plugging memory", |device| region.map_into(device.client()))?;
        Ok(region)
    }

    /// Takes memory away from every device. What was written to it and not reported must still be reported after this.
    ///
    /// # Errors
    ///
    /// [`VmError::Device`].
    pub fn unplug_memory(&mut self, region: &Region) -> Result<(), VmError> {
        self.each("unplugging memory", |device| {
            device.client().dma_unmap(region.iova(), region.size())
        })?;
        self.memory.remove(region.iova());
        Ok(())
    }
}
