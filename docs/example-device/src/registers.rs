//! The register file of BAR 0: which register an access means. What a register does is the device's.

use pagetrail::device::IoError;

/// The value of `ID`: "DIGT".
pub(crate) const ID_VALUE: u32 = 0x5447_4944;

/// `STATUS`: a job is under way.
pub(crate) const STATUS_BUSY: u32 = 1 << 0;
/// `STATUS`: the last job was refused, or ended with an error.
pub(crate) const STATUS_FAILED: u32 = 1 << 1;

/// `CAUSE`: the job has ended, well or not.
pub(crate) const CAUSE_ENDED: u32 = 1 << 0;

// ANCHOR: registers
/// A register. All are 32 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    Id,
    Status,
    Cause,
    MaxBlocks,
    SourceLow,
    SourceHigh,
    TableLow,
    TableHigh,
    Blocks,
    Done,
    Job,
    /// Reads as zero, ignores writes.
    Reserved,
}

impl Register {
    /// The register that an access of `len` bytes at `offset` means.
    pub(crate) fn decode(offset: u64, len: usize) -> Result<Self, IoError> {
        if len != 4 || !offset.is_multiple_of(4) {
            return Err(IoError::BadAccess { offset, len });
        }
        Ok(match offset {
            0x00 => Self::Id,
            0x04 => Self::Status,
            0x08 => Self::Cause,
            0x0c => Self::MaxBlocks,
            0x10 => Self::SourceLow,
            0x14 => Self::SourceHigh,
            0x18 => Self::TableLow,
            0x1c => Self::TableHigh,
            0x20 => Self::Blocks,
            0x24 => Self::Done,
            0x28 => Self::Job,
            _ => Self::Reserved,
        })
    }
}
// ANCHOR_END: registers
