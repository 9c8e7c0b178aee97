//! The vfio-user protocol as data: constants, message structs, and the capabilities of the handshake.
//!
//! Sources: QEMU's `docs/interop/vfio-user.rst`, `linux/vfio.h` where the specification refers to it, and
//! `docs/src/protocol.md` of this project for the extensions. The wire has the byte order of the host, which is
//! little-endian on every host this crate is built for.
//!
//! Nothing here reads or writes a socket, and no struct checks its own contents: a hostile message must be as easy to
//! write as a good one.

mod capabilities;
pub mod consts;
mod feature;
mod message;

pub use capabilities::{Capabilities, Version};
pub use feature::{
    DmaLoggingControl, DmaLoggingRange, DmaLoggingReport, MigDataSize, MigDeviceState, MigState, Migration,
};
pub use message::{
    CapHeader, Command, DeviceFeature, DeviceInfo, DirtyBitmap, DmaAccess, DmaMap, DmaUnmap, Header, IrqInfo,
    IrqSet, MigData, PrecopyInfo, RegionAccess, RegionInfo, RegionIoFds, SparseMmapArea, SparseMmapHeader,
    VersionHeader, WriteMultiEntry,
};

#[cfg(not(target_endian = "little"))]
compile_error!("the structs of the wire are little-endian");
