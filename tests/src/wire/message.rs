//! The header and the payload of every message.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::consts;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Command {
    /// Handshake.
    Version = 1,
    /// Guest memory appears.
    DmaMap = 2,
    /// Guest memory disappears.
    DmaUnmap = 3,
    /// What the device is.
    DeviceGetInfo = 4,
    /// What a region is.
    DeviceGetRegionInfo = 5,
    /// File descriptors that stand for parts of a region.
    DeviceGetRegionIoFds = 6,
    /// What an interrupt index is.
    DeviceGetIrqInfo = 7,
    /// Set up, mask or signal interrupts.
    DeviceSetIrqs = 8,
    /// Read a region.
    RegionRead = 9,
    /// Write a region.
    RegionWrite = 10,
    /// The server reads guest memory.
    DmaRead = 11,
    /// The server writes guest memory.
    DmaWrite = 12,
    /// Reset the device.
    DeviceReset = 13,
    /// Several small region writes.
    RegionWriteMulti = 15,
    /// Get, set or probe a feature.
    DeviceFeature = 16,
    /// Read migration data.
    MigDataRead = 17,
    /// Write migration data.
    MigDataWrite = 18,
    /// Extension of this project: the pre-copy ioctl as a message.
    MigGetPrecopyInfo = 19,
}

impl Command {
    /// Every command, for tests that try all of them.
    pub const ALL: [Self; 18] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::RegionWriteMulti,
        Self::DeviceFeature,
        Self::MigDataRead,
        Self::MigDataWrite,
        Self::MigGetPrecopyInfo,
    ];

    /// The command with this number, if there is one.
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|command| *command as u16 == number)
    }
}

/// What precedes every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of a command, echoed in its reply.
    pub id: u16,
    /// Number of a [`Command`].
    pub command: u16,
    /// Bytes of the whole message, header included.
    pub size: u32,
    /// `consts::FLAG_*`.
    pub flags: u32,
    /// errno of a reply with `FLAG_ERROR`.
    pub error: u32,
}

impl Header {
    /// The header of a command with a payload of `payload` bytes.
    pub fn command(id: u16, command: Command, payload: usize) -> Self {
        Self {
            id,
            command: command as u16,
            size: (consts::HEADER_SIZE + payload) as u32,
            flags: consts::FLAG_TYPE_COMMAND,
            error: 0,
        }
    }

    /// The header of the reply to `request` with a payload of `payload` bytes.
    pub fn reply_to(request: &Self, payload: usize) -> Self {
        Self {
            size: (consts::HEADER_SIZE + payload) as u32,
            flags: consts::FLAG_TYPE_REPLY,
            error: 0,
            ..*request
        }
    }

    /// The header of an error reply to `request`.
    pub fn error_to(request: &Self, errno: u32) -> Self {
        Self {
            flags: consts::FLAG_TYPE_REPLY | consts::FLAG_ERROR,
            error: errno,
            ..Self::reply_to(request, 0)
        }
    }

    /// Whether the message is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & consts::FLAG_TYPE_MASK == consts::FLAG_TYPE_REPLY
    }

    /// Whether the message is a reply that reports an error.
    pub fn is_error(&self) -> bool {
        self.is_reply() && self.flags & consts::FLAG_ERROR != 0
    }
}

/// `VERSION`; a JSON document with a NUL at its end follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VersionHeader {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

/// `DMA_MAP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaMap {
    /// Size of this struct.
    pub argsz: u32,
    /// `consts::DMA_MAP_*`.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// First IOVA.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// `DMA_UNMAP`; a [`DirtyBitmap`] follows with `DMA_UNMAP_GET_DIRTY_BITMAP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaUnmap {
    /// Most bytes of the reply's payload.
    pub argsz: u32,
    /// `consts::DMA_UNMAP_*`.
    pub flags: u32,
    /// First IOVA.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// The kernel's `struct vfio_bitmap` without its pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DirtyBitmap {
    /// Bytes that one bit stands for.
    pub pgsize: u64,
    /// Bytes of the bitmap.
    pub size: u64,
}

/// `DEVICE_GET_INFO`, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// Size of the payload.
    pub argsz: u32,
    /// `consts::DEVICE_FLAGS_*`.
    pub flags: u32,
    /// Regions.
    pub num_regions: u32,
    /// Interrupt indexes.
    pub num_irqs: u32,
}

/// `DEVICE_GET_REGION_INFO`, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Size of the payload, capabilities included.
    pub argsz: u32,
    /// `consts::REGION_FLAG_*`.
    pub flags: u32,
    /// Region.
    pub index: u32,
    /// Offset of the first capability from the start of this struct.
    pub cap_offset: u32,
    /// Bytes of the region.
    pub size: u64,
    /// Offset of the region in the file descriptor.
    pub offset: u64,
}

/// What starts each capability of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapHeader {
    /// `consts::REGION_CAP_*`.
    pub id: u16,
    /// Version of the capability.
    pub version: u16,
    /// Offset of the next one from the start of [`RegionInfo`], or 0.
    pub next: u32,
}

/// The sparse-mmap capability after its [`CapHeader`]; [`SparseMmapArea`]s follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseMmapHeader {
    /// Areas.
    pub nr_areas: u32,
    /// Zero.
    pub reserved: u32,
}

/// A part of a region that can be mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseMmapArea {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// `DEVICE_GET_REGION_IO_FDS`, both ways; sub-regions follow in the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionIoFds {
    /// Size of the payload.
    pub argsz: u32,
    /// Zero.
    pub flags: u32,
    /// Region.
    pub index: u32,
    /// Sub-regions.
    pub count: u32,
}

/// `DEVICE_GET_IRQ_INFO`, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqInfo {
    /// Size of the payload.
    pub argsz: u32,
    /// `consts::IRQ_INFO_*`.
    pub flags: u32,
    /// Interrupt index.
    pub index: u32,
    /// Vectors.
    pub count: u32,
}

/// `DEVICE_SET_IRQS`; one byte for each vector follows with `IRQ_SET_DATA_BOOL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqSet {
    /// Size of the payload, data included.
    pub argsz: u32,
    /// `consts::IRQ_SET_*`.
    pub flags: u32,
    /// Interrupt index.
    pub index: u32,
    /// First vector.
    pub start: u32,
    /// Vectors.
    pub count: u32,
}

/// `REGION_READ` and `REGION_WRITE`, both ways; data follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Offset in the region.
    pub offset: u64,
    /// Region.
    pub region: u32,
    /// Bytes.
    pub count: u32,
}

/// One write of `REGION_WRITE_MULTI`; the request is a 64-bit number of them and then they.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WriteMultiEntry {
    /// Offset in the region.
    pub offset: u64,
    /// Region.
    pub region: u32,
    /// Bytes, at most 8.
    pub count: u32,
    /// Data.
    pub data: [u8; 8],
}

/// `DMA_READ` and `DMA_WRITE`, both ways; data follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaAccess {
    /// First IOVA.
    pub address: u64,
    /// Bytes.
    pub count: u64,
}

/// `DEVICE_FEATURE`, both ways; the feature's data follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceFeature {
    /// Most bytes of the reply's payload.
    pub argsz: u32,
    /// Number of the feature and `consts::FEATURE_{GET,SET,PROBE}`.
    pub flags: u32,
}

/// `MIG_DATA_READ` and `MIG_DATA_WRITE`; data follows a read's reply and a write's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MigData {
    /// Size of the payload.
    pub argsz: u32,
    /// Bytes of migration data.
    pub size: u32,
}

/// `MIG_GET_PRECOPY_INFO`: the kernel's `struct vfio_precopy_info`, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrecopyInfo {
    /// Size of this struct.
    pub argsz: u32,
    /// Zero.
    pub flags: u32,
    /// Bytes of the initial state still to be read.
    pub initial_bytes: u64,
    /// Bytes of state that has changed since.
    pub dirty_bytes: u64,
}
