//! The register file of BAR 0: which register an access means. What a register does is the device's.

use super::Lanes;
use crate::device::IoError;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Id,
    Version,
    Lanes,
    MaxEntries,
    Control,
    Status,
    IntCause,
    IntEnable,
    DescBase,
    CompBase,
    RingEntries,
    RingHead,
    CompTail,
    Error,
    GenBase,
    GenPages,
    GenSeed,
    GenRate,
    GenLimit,
    /// Of this lane.
    GenPosition(usize),
    /// The doorbell.
    RingTail,
    /// The doorbell.
    CompHead,
}

/// A register's own width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32 = 4,
    Bits64 = 8,
}

use Width::{Bits32, Bits64};

const REGISTERS: [(u64, Width, Register); 21] = [
    (0x000, Bits32, Register::Id),
    (0x004, Bits32, Register::Version),
    (0x008, Bits32, Register::Lanes),
    (0x00c, Bits32, Register::MaxEntries),
    (0x010, Bits32, Register::Control),
    (0x014, Bits32, Register::Status),
    (0x018, Bits32, Register::IntCause),
    (0x01c, Bits32, Register::IntEnable),
    (0x020, Bits64, Register::DescBase),
    (0x028, Bits64, Register::CompBase),
    (0x030, Bits32, Register::RingEntries),
    (0x034, Bits32, Register::RingHead),
    (0x038, Bits32, Register::CompTail),
    (0x03c, Bits32, Register::Error),
    (0x100, Bits64, Register::GenBase),
    (0x108, Bits64, Register::GenPages),
    (0x110, Bits64, Register::GenSeed),
    (0x118, Bits64, Register::GenRate),
    (0x120, Bits64, Register::GenLimit),
    (0x1000, Bits32, Register::RingTail),
    (0x1004, Bits32, Register::CompHead),
];

/// `GEN_POSITION[0]`; one register of 64 bits for each lane from there on.
const GEN_POSITION: u64 = 0x200;

/// The register that `offset` lies in, with its own offset and width.
fn find(offset: u64, lanes: Lanes) -> Option<(u64, Width, Register)> {
    if let Some(lane) = offset.checked_sub(GEN_POSITION).map(|bytes| bytes / 8)
        && lane < u64::from(lanes.get())
    {
        return Some((
            GEN_POSITION + 8 * lane,
            Bits64,
            Register::GenPosition(lane as usize),
        ));
    }
    let holds = |(start, width, _): &&(u64, Width, Register)| offset.wrapping_sub(*start) < *width as u64;
    REGISTERS.iter().find(holds).copied()
}

/// What an access of BAR 0 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// No register: reads as zero, ignores writes.
    Nothing,
    /// A register, or a half of it.
    Register(Register, Part),
}

/// The part of a register that an access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    LowHalf,
    HighHalf,
}

impl Target {
    /// What an access of `len` bytes at `offset` means on a device with `lanes`.
    pub(super) fn decode(offset: u64, len: usize, lanes: Lanes) -> Result<Self, IoError> {
        let bad_access = IoError::BadAccess { offset, len };
        let is_aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
        if !is_aligned {
            return Err(bad_access);
        }
        let Some((start, width, register)) = find(offset, lanes) else {
            return Ok(Self::Nothing);
        };
        let part = match (width, len) {
            (Bits32, 4) | (Bits64, 8) => Part::Whole,
            (Bits64, 4) if offset == start => Part::LowHalf,
            (Bits64, 4) => Part::HighHalf,
            _ => return Err(bad_access),
        };
        Ok(Self::Register(register, part))
    }
}

impl Part {
    /// Puts this part of `value` into `data`.
    pub(super) fn read(self, value: u64, data: &mut [u8]) {
        let value = match self {
            Self::Whole | Self::LowHalf => value,
            Self::HighHalf => value >> 32,
        };
        put(value, data);
    }

    /// `value` with this part replaced by `data`.
    pub(super) fn write(self, value: u64, data: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        for (byte, new) in bytes.iter_mut().zip(data) {
            *byte = *new;
        }
        let new = u64::from_le_bytes(bytes);
        match self {
            Self::Whole => new,
            Self::LowHalf => (value & !u64::from(u32::MAX)) | new,
            Self::HighHalf => (value & u64::from(u32::MAX)) | (new << 32),
        }
    }
}

/// Puts the low bytes of `value` into `data`.
fn put(value: u64, data: &mut [u8]) {
    for (byte, new) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(offset: u64, len: usize) -> Result<Target, IoError> {
        Target::decode(offset, len, Lanes::new(2).unwrap())
    }

    #[test]
    fn every_register_answers_to_its_own_width_and_to_halves_only() {
        for (offset, width, register) in REGISTERS {
            let whole = Ok(Target::Register(register, Part::Whole));
            match width {
                Bits32 => {
                    assert_eq!(decode(offset, 4), whole);
                    assert!(decode(offset & !7, 8).is_err());
                }
                Bits64 => {
                    assert_eq!(decode(offset, 8), whole);
                    assert_eq!(decode(offset, 4), Ok(Target::Register(register, Part::LowHalf)));
                    assert_eq!(
                        decode(offset + 4, 4),
                        Ok(Target::Register(register, Part::HighHalf))
                    );
                    assert!(decode(offset + 4, 8).is_err());
                }
            }
            for len in [0, 1, 2, 3, 5, 16] {
                assert!(decode(offset, len).is_err());
            }
            assert!(decode(offset + 2, 4).is_err());
        }
    }

    #[test]
    fn positions_end_with_the_lanes() {
        assert_eq!(
            decode(0x208, 8),
            Ok(Target::Register(Register::GenPosition(1), Part::Whole))
        );
        assert_eq!(decode(0x210, 8), Ok(Target::Nothing));
    }

    #[test]
    fn a_half_written_leaves_the_other_half() {
        let value = Part::LowHalf.write(0x1111_1111_2222_2222, &[4, 3, 2, 1]);
        assert_eq!(value, 0x1111_1111_0102_0304);
        assert_eq!(Part::HighHalf.write(value, &[8, 7, 6, 5]), 0x0506_0708_0102_0304);
    }

    #[test]
    fn no_access_panics() {
        for offset in (0..0x2000).chain([u64::MAX - 7, u64::MAX]) {
            for len in 0..10 {
                let _ = decode(offset, len);
            }
        }
    }
}
