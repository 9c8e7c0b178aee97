//! [`Registers`]: a PCI device's configuration space and its registers.

use std::sync::Arc;

use vfio_ioctls::VfioDevice;

/// VFIO's number of the PCI configuration space.
const CONFIG_REGION: u32 = 7;
/// Offset of the command register.
const COMMAND: u64 = 4;
/// Answers at its BARs, and masters the bus.
const MEMORY_AND_MASTER: u16 = 0b110;

/// What a device is driven by.
pub(crate) struct Registers {
    vfio: Arc<VfioDevice>,
}

impl Registers {
    /// Those of the device, which may use the bus from now on: VFIO takes that from a device when it is opened.
    pub(crate) fn of(vfio: &Arc<VfioDevice>) -> Self {
        let registers = Self { vfio: vfio.clone() };
        registers.master_the_bus();
        registers
    }

    /// Has the device answer, and lets it use the bus.
    pub(crate) fn master_the_bus(&self) {
        let mut command = [0; 2];
        self.vfio.region_read(CONFIG_REGION, &mut command, COMMAND);
        let command = u16::from_le_bytes(command) | MEMORY_AND_MASTER;
        self.vfio
            .region_write(CONFIG_REGION, &command.to_le_bytes(), COMMAND);
    }

    /// The vendor's and the device's number in the PCI configuration space.
    pub(crate) fn pci_id(&self) -> (u16, u16) {
        let mut id = [0; 4];
        self.vfio.region_read(CONFIG_REGION, &mut id, 0);
        let [a, b, c, d] = id;
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    }

    pub(crate) fn set32(&self, register: u64, value: u32) {
        self.vfio.region_write(0, &value.to_le_bytes(), register);
    }

    pub(crate) fn get32(&self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.vfio.region_read(0, &mut value, register);
        u32::from_le_bytes(value)
    }

    pub(crate) fn set64(&self, register: u64, value: u64) {
        self.vfio.region_write(0, &value.to_le_bytes(), register);
    }

    pub(crate) fn get64(&self, register: u64) -> u64 {
        let mut value = [0; 8];
        self.vfio.region_read(0, &mut value, register);
        u64::from_le_bytes(value)
    }
}
