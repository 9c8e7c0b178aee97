//! Which message goes where.

use rustix::io::Errno;

use super::{Session, version};
use crate::device::{Bar, IoError};
use crate::vfu::{Answer, Handler, Message, Reply};
use crate::wire::{self, command, region};

/// Bytes of conventional config space.
const PCI_CONFIG_SIZE: u64 = 256;
/// Offset and bits of the PCI command register.
const PCI_COMMAND: u64 = 4;
const PCI_COMMAND_MASTER: u8 = 1 << 2;

impl Handler for std::sync::Arc<Session> {
    fn version(&self, client: Option<&str>) -> Result<Option<String>, Errno> {
        Ok(Some(version::announced(client)))
    }

    fn message(&self, message: &mut Message<'_>) -> Result<Answer, Errno> {
        self.unconfirmed.confirm(|| self.connection.is_read());
        let payload = message.payload;
        let answer = match message.command {
            command::DMA_MAP => self.dma_map(payload, message.take_fds()),
            command::DMA_UNMAP => self.dma_unmap(payload),
            command::DEVICE_GET_IRQ_INFO => self.irq_info(payload),
            command::DEVICE_SET_IRQS => self.set_irqs(payload, message.take_fds()),
            command::DEVICE_FEATURE => self.feature(payload),
            command::MIG_DATA_READ => self.migration_read(payload),
            command::MIG_DATA_WRITE => self.migration_write(payload),
            command::MIG_GET_PRECOPY_INFO => self.precopy_info(payload),
            command::DEVICE_RESET => self.reset().map(|()| Vec::new()),
            command::REGION_WRITE => {
                self.follow_command_register(payload);
                return Ok(Answer::Pass);
            }
            _ => return Ok(Answer::Pass),
        };
        if message.reply == Reply::Withheld {
            self.put_back_reports();
        }
        answer.map(Answer::Reply)
    }

    fn read_bar(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.device
            .read(bar, offset, data)
            .map_err(|error| self.refused_access(error))
    }

    fn write_bar(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), Errno> {
        // A write to a device whose state is being saved, loaded or kept would be lost or would change what was saved.
        if !self.migration.lock().state().accepts_writes() {
            tracing::debug!(
                device = self.name,
                ?bar,
                offset,
                "refused a register write while the device is stopped"
            );
            return Err(Errno::BUSY);
        }
        self.device
            .write(bar, offset, data)
            .map_err(|error| self.refused_access(error))
    }
}

impl Session {
    fn refused_access(&self, error: IoError) -> Errno {
        tracing::debug!(device = self.name, %error, "refused a register access");
        Errno::INVAL
    }

    /// Config space is libvfio-user's, but whether the device may master the bus is for its DMA to know. Follows every write that
    /// the library lets reach the command register's low byte, and no other.
    fn follow_command_register(&self, payload: &[u8]) {
        let Ok((access, data)) = wire::split::<region::RegionAccess>(payload) else {
            return;
        };
        if access.region != region::CONFIG_REGION || access.count as usize != data.len() {
            return;
        }
        // The library takes a write apart by registers and ends at the first that it refuses: one that begins before the command
        // register ends at the IDs.
        if access.offset != PCI_COMMAND || data.len() as u64 > PCI_CONFIG_SIZE - PCI_COMMAND {
            return;
        }
        if let Some(low_byte) = data.first() {
            self.space
                .set_bus_master((low_byte & PCI_COMMAND_MASTER != 0).into());
        }
    }
}
