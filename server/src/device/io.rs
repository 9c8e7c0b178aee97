//! Register access.

use super::Bar;

/// Access to a device's BARs. Config space is the server's own.
pub trait DeviceIo: Send + Sync {
    /// Reads `data.len()` bytes at `offset` of `bar`. The access lies within the BAR; its width and alignment are the
    /// device's to check.
    ///
    /// # Errors
    ///
    /// [`IoError`], which the client gets as an error reply.
    fn read(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), IoError>;

    /// Writes `data` at `offset` of `bar`; see [`read`](Self::read). Not called while the device is stopped
    /// ([`RunState`](super::RunState)).
    ///
    /// # Errors
    ///
    /// [`IoError`], which the client gets as an error reply.
    fn write(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), IoError>;
}

/// Why a register access failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The width or alignment is not one the register has.
    #[error("access of {len} bytes at offset {offset:#x} is not one the registers have")]
    BadAccess {
        /// Offset in the BAR.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// The device has no such BAR.
    #[error("no such BAR")]
    NoSuchBar,
}
