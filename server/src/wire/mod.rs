//! Layouts of the messages that Rust answers itself.
//!
//! Structures are those of the vfio-user specification (QEMU's `docs/interop/vfio-user.rst`), in host byte order and without
//! alignment. There is no logic here but to take a message apart and to put a reply together; a payload that is too short is
//! `EINVAL`.

pub(crate) mod dma;
pub(crate) mod feature;
pub(crate) mod irq;
pub(crate) mod migration;
pub(crate) mod region;

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Command numbers.
pub(crate) mod command {
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const DEVICE_GET_INFO: u16 = 4;
    pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
    pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub(crate) const DEVICE_SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DEVICE_RESET: u16 = 13;
    pub(crate) const DEVICE_FEATURE: u16 = 16;
    pub(crate) const MIG_DATA_READ: u16 = 17;
    pub(crate) const MIG_DATA_WRITE: u16 = 18;
    /// Not in the specification; see `docs/src/protocol.md`.
    pub(crate) const MIG_GET_PRECOPY_INFO: u16 = 19;
}

/// The most data that one message carries, besides its headers, in bytes.
pub(crate) const MAX_DATA_XFER_SIZE: usize = 1 << 20;

/// Takes a fixed structure off the front of a payload.
pub(crate) fn split<T: FromBytes + KnownLayout + Immutable + Copy>(
    payload: &[u8],
) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(payload).map_err(|_| Errno::INVAL)
}

/// A fixed structure as bytes.
pub(crate) fn bytes<T: IntoBytes + Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}
