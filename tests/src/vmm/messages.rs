//! DMA by messages: the server asks, the client reads and writes guest memory for it.
//!
//! Such writes are the client's own: they go into the CPU's dirty log, and the server reports nothing for them.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::memory::GuestMemory;
use crate::client::{Message, ServerRequests};
use crate::wire::{Command, DmaAccess, consts};

/// Most bytes of one message.
const MAX_TRANSFER: u64 = 16 << 20;

/// Serves `DMA_READ` and `DMA_WRITE` from guest memory.
pub struct MemoryMessages(pub Arc<GuestMemory>);

impl ServerRequests for MemoryMessages {
    fn serve(&mut self, request: &Message) -> Result<Vec<u8>, u32> {
        let access: DmaAccess = request.parse().map_err(|_| consts::EINVAL)?;
        if access.count > MAX_TRANSFER {
            return Err(consts::E2BIG);
        }
        match request.command() {
            Some(Command::DmaRead) => {
                let mut data = vec![0; access.count as usize];
                self.0
                    .read(access.address, &mut data)
                    .map_err(|_| consts::EFAULT)?;
                Ok([access.as_bytes(), &data].concat())
            }
            Some(Command::DmaWrite) => {
                let data = &request.payload[size_of::<DmaAccess>()..];
                let data = data.get(..access.count as usize).ok_or(consts::EINVAL)?;
                self.0.write(access.address, data).map_err(|_| consts::EFAULT)?;
                Ok(access.as_bytes().to_vec())
            }
            _ => Err(consts::ENOTSUP),
        }
    }
}
