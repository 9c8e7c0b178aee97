//! [`Bar`]: a PCI device's configuration space and its registers.

use std::sync::Arc;

use anyhow::Result;
use pagetrail_rig_devices::Registers;
use vfio_ioctls::VfioDevice;

/// VFIO's number of the PCI configuration space.
const CONFIG_REGION: u32 = 7;
/// Offset of the command register.
const COMMAND: u64 = 4;
/// Answers at its BARs, and masters the bus.
const MEMORY_AND_MASTER: u16 = 0b110;

/// What a device is driven by.
#[derive(Clone)]
pub(crate) struct Bar {
    vfio: Arc<VfioDevice>,
}

impl Bar {
    /// That of the device, which may use the bus from now on: VFIO takes that from a device when it is opened.
    pub(crate) fn of(vfio: &Arc<VfioDevice>) -> Self {
        let bar = Self { vfio: vfio.clone() };
        bar.master_the_bus();
        bar
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

    fn read<const LEN: usize>(&self, offset: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.vfio.region_read(0, &mut bytes, offset);
        bytes
    }
}

/// Each access is a system call.
impl Registers for Bar {
    fn read32(&mut self, offset: u64) -> Result<u32> {
        Ok(u32::from_le_bytes(self.read(offset)))
    }

    fn write32(&mut self, offset: u64, value: u32) -> Result<()> {
        self.vfio.region_write(0, &value.to_le_bytes(), offset);
        Ok(())
    }

    fn read64(&mut self, offset: u64) -> Result<u64> {
        Ok(u64::from_le_bytes(self.read(offset)))
    }

    fn write64(&mut self, offset: u64, value: u64) -> Result<()> {
        self.vfio.region_write(0, &value.to_le_bytes(), offset);
        Ok(())
    }
}
