//! The register map as constants, without logic. The words to them are in `docs/src/dma-device.md`.

use bitflags::bitflags;

use crate::device::{PciClass, PciId};

pub(super) const PCI_ID: PciId = PciId {
    vendor: 0x1234,
    device: 0x7074,
    subsystem_vendor: 0x1234,
    subsystem: 0x7074,
};
pub(super) const PCI_CLASS: PciClass = PciClass {
    base: 0x08,
    sub: 0x01,
    interface: 0x00,
};

/// Bytes of BAR 0: a page of registers and a page of doorbells.
pub(super) const BAR0_SIZE: u64 = 0x2000;
/// Bytes of BAR 4: the MSI-X table and the pending bits.
pub(super) const BAR4_SIZE: u64 = 0x2000;
/// Where the doorbell page lies in BAR 0.
pub(super) const DOORBELL_PAGE: u64 = 0x1000;
/// Bytes of the doorbell page.
pub(super) const DOORBELL_PAGE_SIZE: u64 = 0x1000;

/// `ID`: `"PGTR"`.
pub(super) const ID_VALUE: u32 = 0x5254_4750;
/// `VERSION`.
pub(super) const VERSION_VALUE: u32 = 1;
/// `MAX_ENTRIES`: the most entries of a ring.
pub(super) const MAX_ENTRIES: u32 = 4096;
/// The least entries of a ring.
pub(super) const MIN_ENTRIES: u32 = 2;
/// The most lanes.
pub(super) const MAX_LANES: u32 = 64;

/// Bytes of a descriptor, and the alignment of their ring.
pub(super) const DESCRIPTOR_SIZE: u64 = 64;
/// Bytes of a completion, and the alignment of their ring.
pub(super) const COMPLETION_SIZE: u64 = 32;
/// Where `PHASE` lies in a completion.
pub(super) const PHASE_OFFSET: u64 = 0x1c;
/// The largest `LENGTH` of a descriptor.
pub(super) const MAX_LENGTH: u64 = 1 << 30;
/// Bytes that one generator write fills, and the alignment of its window.
pub(super) const GEN_PAGE_SIZE: u64 = 4096;

/// Values of a descriptor's `OPCODE`.
pub(super) mod opcode {
    pub(in super::super) const NOP: u32 = 0;
    pub(in super::super) const COPY: u32 = 1;
    pub(in super::super) const FILL: u32 = 2;
    pub(in super::super) const CRC: u32 = 3;
}

/// Bit 0 of a descriptor's `FLAGS`: raise the completion cause.
pub(super) const FLAG_NOTIFY: u32 = 1;

bitflags! {
    /// `CONTROL`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Control: u32 {
        const RING_ENABLE = 1 << 0;
        const GEN_ENABLE = 1 << 1;
    }

    /// `STATUS`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Status: u32 {
        const RING_BUSY = 1 << 0;
        const GEN_RUNNING = 1 << 1;
        const RING_ERROR = 1 << 2;
        const GEN_ERROR = 1 << 3;
        const FAILED = 1 << 4;
    }

    /// `INT_CAUSE` and `INT_ENABLE`. Bit `n` is interrupt cause `n`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Causes: u32 {
        const COMPLETION = 1 << 0;
        const GEN_FINISHED = 1 << 1;
        const RING_ERROR = 1 << 2;
        const GEN_ERROR = 1 << 3;
    }
}

/// Interrupt vectors: one for each cause.
pub(super) const VECTORS: u32 = 4;

/// Error codes of completions and of `ERROR`. Zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    BadDescriptor = 1,
    BadAddress = 2,
    BadDoorbell = 3,
    BadRing = 4,
    BadGenerator = 5,
    BusMasterOff = 6,
    MemoryFailed = 7,
}

impl ErrorCode {
    /// All of them, in the order of their codes.
    pub(super) const ALL: [Self; 7] = [
        Self::BadDescriptor,
        Self::BadAddress,
        Self::BadDoorbell,
        Self::BadRing,
        Self::BadGenerator,
        Self::BusMasterOff,
        Self::MemoryFailed,
    ];
}
