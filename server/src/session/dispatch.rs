//! Which message goes where.

use rustix::io::Errno;

use super::{Session, version};
use crate::device::Bar;
use crate::vfu::{Answer, Handler, Message, Reply};
use crate::wire::command;

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
            command::DEVICE_RESET => self.backend.reset().map(|()| Vec::new()),
            _ => return self.backend.other(message),
        };
        if message.reply == Reply::Withheld {
            self.put_back_reports();
        }
        answer.map(Answer::Reply)
    }

    fn read_bar(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.backend.read_bar(bar, offset, data)
    }

    fn write_bar(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.backend.write_bar(bar, offset, data)
    }
}
