//! One device: its connection, its BARs and its interrupts.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::config::{Capability, ConfigSpace};
use super::irq::{Interrupts, IrqKind};
use crate::client::{Client, IrqAction, Result};
use crate::wire::{DeviceInfo, consts};

/// Where the first device's BARs are put; nothing decodes them.
const BAR_BASE: u32 = 0xe000_0000;

/// A part of a region, mapped.
pub struct MappedArea {
    offset: u64,
    map: MmapRegion<()>,
}

impl MappedArea {
    /// Offset in the region.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.map.size() as u64
    }

    /// Stores a 32-bit word at an offset of the *region*; what was stored before is seen first. `None` when the offset is
    /// not in the area or not aligned.
    pub fn store(&self, offset: u64, value: u32) -> Option<()> {
        let inside = offset.checked_sub(self.offset)?;
        self.map
            .as_volatile_slice()
            .store(value, inside as usize, Ordering::Release)
            .ok()
    }

    /// Loads a 32-bit word at an offset of the *region*; `None` as for [`Self::store`].
    pub fn load(&self, offset: u64) -> Option<u32> {
        let inside = offset.checked_sub(self.offset)?;
        self.map
            .as_volatile_slice()
            .load(inside as usize, Ordering::Acquire)
            .ok()
    }
}

/// One device of a VM.
pub struct Device {
    name: String,
    client: Client,
    info: DeviceInfo,
    interrupts: Option<Interrupts>,
}

impl Device {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    ///
    /// See [`Client::connect`].
    pub fn connect(path: &Path) -> Result<Self> {
        let client = Client::connect(path)?;
        Self::new(path.display().to_string(), client)
    }

    /// A device over a connection that is negotiated already.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn new(name: String, mut client: Client) -> Result<Self> {
        let info = client.device_info()?;
        Ok(Self {
            name,
            client,
            info,
            interrupts: None,
        })
    }

    /// What to call the device in a report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What the device said it is.
    pub fn info(&self) -> DeviceInfo {
        self.info
    }

    /// Configuration space.
    pub fn config(&mut self) -> ConfigSpace<'_> {
        ConfigSpace(&mut self.client)
    }

    /// Does what firmware and a driver's probe do: addresses for the BARs, memory decoding, bus mastering.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn enable(&mut self) -> Result<()> {
        self.config().program_bars(BAR_BASE)?;
        self.config().enable()
    }

    /// Reads a 32-bit register by message.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn read32(&mut self, region: u32, offset: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.client.region_read(region, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes a 32-bit register by message.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn write32(&mut self, region: u32, offset: u64, value: u32) -> Result<()> {
        self.client.region_write(region, offset, &value.to_le_bytes())
    }

    /// Reads a 64-bit register by message.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn read64(&mut self, region: u32, offset: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.client.region_read(region, offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a 64-bit register by message.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn write64(&mut self, region: u32, offset: u64, value: u64) -> Result<()> {
        self.client.region_write(region, offset, &value.to_le_bytes())
    }

    /// Maps what can be mapped of a region.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]; or the system refuses to map what the server offers.
    pub fn map_region(&mut self, region: u32) -> Result<Vec<MappedArea>> {
        let description = self.client.region_info(region)?;
        let Some(fd) = description.fd else {
            return Ok(Vec::new());
        };
        let file = Arc::new(File::from(fd));
        let map = |area: &crate::wire::SparseMmapArea| {
            let start = FileOffset::from_arc(
                Arc::clone(&file),
                description.info.offset.wrapping_add(area.offset),
            );
            let map = MmapRegion::from_file(start, area.size as usize).map_err(std::io::Error::other)?;
            Ok(MappedArea {
                offset: area.offset,
                map,
            })
        };
        description.areas.iter().map(map).collect()
    }

    /// Connects an eventfd to each vector of a kind of interrupt, in place of what was connected before.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn connect_interrupts(&mut self, kind: IrqKind) -> Result<()> {
        self.disconnect_interrupts()?;
        let vectors = self.client.irq_info(kind.index())?.count;
        match kind {
            IrqKind::Intx => {}
            IrqKind::Msi => self.config().enable_messages(Capability::Msi)?,
            IrqKind::Msix => self.config().enable_messages(Capability::Msix)?,
        }
        let interrupts = Interrupts::new(kind, vectors)?;
        self.client
            .set_irqs(kind.index(), 0, vectors, IrqAction::Connect(&interrupts.fds()))?;
        self.interrupts = Some(interrupts);
        Ok(())
    }

    /// Takes the eventfds away.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn disconnect_interrupts(&mut self) -> Result<()> {
        let Some(interrupts) = self.interrupts.take() else {
            return Ok(());
        };
        self.client
            .set_irqs(interrupts.kind().index(), 0, 0, IrqAction::Disable)
    }

    /// The interrupts that are connected.
    pub fn interrupts(&self) -> Option<&Interrupts> {
        self.interrupts.as_ref()
    }

    /// The best kind of interrupt the device has, as a guest driver would choose it.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn best_interrupt(&mut self) -> Result<Option<IrqKind>> {
        for kind in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx] {
            if kind.index() < self.info.num_irqs && self.client.irq_info(kind.index())?.count > 0 {
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    /// Whether the device can be reset.
    pub fn can_reset(&self) -> bool {
        self.info.flags & consts::DEVICE_FLAGS_RESET != 0
    }
}
