//! A device as its client sees it before it has run.

/// A PCI BAR by number, 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bar {
    /// BAR 0.
    Bar0,
    /// BAR 1.
    Bar1,
    /// BAR 2.
    Bar2,
    /// BAR 3.
    Bar3,
    /// BAR 4.
    Bar4,
    /// BAR 5.
    Bar5,
}

impl Bar {
    /// Every BAR, by number.
    pub const ALL: [Self; 6] = [
        Self::Bar0,
        Self::Bar1,
        Self::Bar2,
        Self::Bar3,
        Self::Bar4,
        Self::Bar5,
    ];
}

/// Identity in config space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciId {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Class code in config space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciClass {
    /// Base class.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

/// A part of a BAR that the client may map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmapArea {
    /// Offset in the BAR, and in the BAR's file, in bytes; a multiple of 4 KiB.
    pub offset: u64,
    /// Bytes; a multiple of 4 KiB.
    pub len: u64,
}

/// A memory BAR, 32-bit, not prefetchable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarSpec {
    /// Which one.
    pub bar: Bar,
    /// Bytes; a power of two, 16 or more.
    pub size: u64,
    /// Parts that the client may map.
    pub mmap: Vec<MmapArea>,
}

/// Interrupts that a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IrqCounts {
    /// INTx pins: 0 or 1.
    pub intx: u32,
    /// MSI vectors: 0 or a power of two up to 32.
    pub msi: u32,
    /// MSI-X, if the device has it.
    pub msix: Option<Msix>,
}

/// MSI-X of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msix {
    /// Vectors: 1 to 2048.
    pub vectors: u32,
    /// The BAR with the table at 0 and the pending bits at 0x1000. The client keeps both.
    pub bar: Bar,
}

/// A device as its client sees it before it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Identity.
    pub id: PciId,
    /// Class code.
    pub class: PciClass,
    /// Revision ID.
    pub revision: u8,
    /// BARs.
    pub bars: Vec<BarSpec>,
    /// Interrupts.
    pub irqs: IrqCounts,
}

impl DeviceSpec {
    /// No device: what a client that is refused gets to see.
    pub(crate) fn none() -> Self {
        Self {
            id: PciId {
                vendor: 0xffff,
                device: 0xffff,
                subsystem_vendor: 0,
                subsystem: 0,
            },
            class: PciClass {
                base: 0xff,
                sub: 0,
                interface: 0,
            },
            revision: 0,
            bars: Vec::new(),
            irqs: IrqCounts::default(),
        }
    }
}
