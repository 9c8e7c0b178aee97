//! PCI configuration space of a device.

use crate::client::{Client, Result};
use crate::wire::consts;

/// Offsets and bits of the header.
mod pci {
    pub(super) const COMMAND: u64 = 0x04;
    pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
    pub(super) const COMMAND_MASTER: u16 = 1 << 2;
    pub(super) const STATUS: u64 = 0x06;
    pub(super) const STATUS_CAP_LIST: u16 = 1 << 4;
    pub(super) const BAR0: u64 = 0x10;
    pub(super) const CAP_POINTER: u64 = 0x34;
    pub(super) const BAR_IO: u32 = 1;
    pub(super) const BAR_TYPE_MASK: u32 = 0b110;
    pub(super) const BAR_TYPE_64: u32 = 0b100;
    pub(super) const BARS: u32 = 6;
}

/// Offsets and bits of the capability of PCI Express.
mod express {
    pub(super) const CONTROL: u64 = 8;
    pub(super) const CONTROL_RESET: u16 = 1 << 15;
}

/// Longest capability chain that fits in 256 bytes.
const MAX_CAPABILITIES: usize = 48;

/// Capabilities of configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Power management.
    PowerManagement = 0x01,
    /// Message-signalled interrupts.
    Msi = 0x05,
    /// PCI Express.
    Express = 0x10,
    /// Message-signalled interrupts with a table.
    Msix = 0x11,
}

/// Accesses to configuration space over a connection.
pub struct ConfigSpace<'a>(pub &'a mut Client);

impl ConfigSpace<'_> {
    /// Reads bytes.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn read<const N: usize>(&mut self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.region_read(consts::REGION_CONFIG, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.region_write(consts::REGION_CONFIG, offset, data)
    }

    /// Vendor and device.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn id(&mut self) -> Result<(u16, u16)> {
        let [a, b, c, d] = self.read(0)?;
        Ok((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
    }

    /// Where a capability is, if the device has it.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn find(&mut self, capability: Capability) -> Result<Option<u64>> {
        let status = u16::from_le_bytes(self.read(pci::STATUS)?);
        if status & pci::STATUS_CAP_LIST == 0 {
            return Ok(None);
        }
        let [mut next] = self.read(pci::CAP_POINTER)?;
        for _ in 0..MAX_CAPABILITIES {
            let offset = u64::from(next & !3);
            if offset == 0 {
                return Ok(None);
            }
            let [id, after] = self.read(offset)?;
            if id == capability as u8 {
                return Ok(Some(offset));
            }
            next = after;
        }
        Ok(None)
    }

    /// Sizes each memory BAR and gives it an address from `base` on, as firmware does.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn program_bars(&mut self, base: u32) -> Result<()> {
        let mut next = u64::from(base);
        let mut bar = 0;
        while bar < pci::BARS {
            let offset = pci::BAR0 + u64::from(bar) * 4;
            self.write(offset, &u32::MAX.to_le_bytes())?;
            let probed = u32::from_le_bytes(self.read(offset)?);
            let wide = probed & (pci::BAR_IO | pci::BAR_TYPE_MASK) == pci::BAR_TYPE_64;
            let size = u64::from(!(probed & !0xf)) + 1;
            bar += if wide { 2 } else { 1 };
            if probed & !0xf == 0 || probed & pci::BAR_IO != 0 {
                self.write(offset, &0_u32.to_le_bytes())?;
                continue;
            }
            next = next.next_multiple_of(size);
            self.write(offset, &(next as u32).to_le_bytes())?;
            if wide {
                self.write(offset + 4, &0_u32.to_le_bytes())?;
            }
            next += size;
        }
        Ok(())
    }

    /// Lets the device decode its BARs and do DMA.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn enable(&mut self) -> Result<()> {
        let command =
            u16::from_le_bytes(self.read(pci::COMMAND)?) | pci::COMMAND_MEMORY | pci::COMMAND_MASTER;
        self.write(pci::COMMAND, &command.to_le_bytes())
    }

    /// Forbids the device DMA; its BARs stay.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn disable_bus_master(&mut self) -> Result<()> {
        let command = u16::from_le_bytes(self.read(pci::COMMAND)?) & !pci::COMMAND_MASTER;
        self.write(pci::COMMAND, &command.to_le_bytes())
    }

    /// Resets a function of PCI Express, as its driver does.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn reset_function(&mut self) -> Result<()> {
        let Some(offset) = self.find(Capability::Express)? else {
            return Ok(());
        };
        let control = u16::from_le_bytes(self.read(offset + express::CONTROL)?) | express::CONTROL_RESET;
        self.write(offset + express::CONTROL, &control.to_le_bytes())
    }

    /// Sets the enable bit of MSI or MSI-X, if the device has the capability.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn enable_messages(&mut self, capability: Capability) -> Result<()> {
        let Some(offset) = self.find(capability)? else {
            return Ok(());
        };
        let bit = match capability {
            Capability::Msi => 1 << 0,
            Capability::Msix => 1 << 15,
            Capability::PowerManagement | Capability::Express => return Ok(()),
        };
        let control = u16::from_le_bytes(self.read(offset + 2)?) | bit;
        self.write(offset + 2, &control.to_le_bytes())
    }

    /// The header and the capabilities: the 256 bytes that a VMM carries to the destination.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn snapshot(&mut self) -> Result<[u8; 256]> {
        self.read(0)
    }

    /// Writes what a VMM restores of a [`Self::snapshot`]: BARs, then the command register.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn restore(&mut self, snapshot: &[u8; 256]) -> Result<()> {
        let bars = pci::BAR0 as usize..pci::BAR0 as usize + 4 * pci::BARS as usize;
        for (index, bar) in snapshot[bars].chunks_exact(4).enumerate() {
            self.write(pci::BAR0 + index as u64 * 4, bar)?;
        }
        let command = pci::COMMAND as usize;
        self.write(pci::COMMAND, &snapshot[command..command + 2])
    }
}
