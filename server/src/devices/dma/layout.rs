//! Descriptors and completions as they lie in guest memory.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::spec;

/// A descriptor. A copy of the driver's: it cannot change while it is looked at.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) opcode: U32,
    pub(super) flags: U32,
    pub(super) source: U64,
    pub(super) dest: U64,
    pub(super) length: U64,
    pub(super) cookie: U64,
    pub(super) reserved: [u8; 24],
}

/// A completion without its `PHASE`, which is written after it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct CompletionBody {
    pub(super) cookie: U64,
    pub(super) result: U64,
    pub(super) index: U32,
    pub(super) status: U32,
    pub(super) reserved: U32,
}

const _: () = assert!(size_of::<Descriptor>() as u64 == spec::DESCRIPTOR_SIZE);
const _: () = assert!(size_of::<CompletionBody>() as u64 == spec::PHASE_OFFSET);
const _: () = assert!(spec::PHASE_OFFSET + 4 == spec::COMPLETION_SIZE);
