//! The stream that carries a device's state from one process to another.
//!
//! ```text
//! stream   = "PGTRSTRM"  version: u32           then records
//! record   = type: u32  length: u32  checksum: u32  payload  checksum: u32
//!
//! type 1, header   the device's Identity, in CBOR                                     first, once
//! type 2, state    a piece of what the device saved: 1 byte to 1 MiB, 64 MiB in all   in order, any number
//! type 3, end      records before it: u64  bytes before it: u64                       last, once
//! ```
//!
//! Integers are little-endian. A checksum is the CRC-32C of everything from the stream's first byte on, the checksums left out: so
//! each one also vouches for the order of all that came before it. (With the checksums left in it would vouch for nothing but
//! the last part: data followed by its own CRC leaves the same remainder, whatever the data.)
//!
//! The header can be read while the device still works, so that a destination that is not
//! alike refuses before the source has stopped. The end record says that nothing is missing: no state reaches the device before
//! the end record has been checked.
//!
//! A reader takes the bytes in pieces of any size, and believes nothing: a length is checked before it is used, and memory is
//! taken for bytes that have arrived, not for bytes that were announced. A record's length has a checksum of its own, so that
//! a damaged one is found at once, and not by waiting for bytes that never come.
//!
//! Versions: a reader knows one version of this framing, and refuses every other. What may change in a device's own state is
//! the device's to say, with [`Identity::version`].
//!
//! Not here: when a stream begins and ends ([`Migration`](super::Migration)), and authenticity. Checksums find accidents; who may
//! write to a destination is for the VMM's migration channel to decide.

mod identity;
mod reader;
mod writer;

pub use identity::Differences;
pub use reader::{Incoming, Left, Progress};
pub use writer::Outgoing;

use rustix::io::Errno;

use crate::device::{Identity, RestoreError};

/// First bytes of every stream.
pub const MAGIC: [u8; 8] = *b"PGTRSTRM";

/// The version of the framing.
pub const VERSION: u32 = 1;

/// The most that a device may save, in bytes.
pub const MAX_STATE_LEN: usize = 64 << 20;

/// Bytes before the first record.
const PROLOGUE_LEN: usize = MAGIC.len() + size_of::<u32>();
/// Type, length and a checksum.
const RECORD_HEADER_LEN: usize = 3 * size_of::<u32>();
/// A checksum.
const CRC_LEN: usize = size_of::<u32>();
/// The most that an identity may take, in bytes.
const MAX_IDENTITY_LEN: usize = 4 << 10;
/// The most that one state record carries, in bytes.
const MAX_CHUNK_LEN: usize = 1 << 20;
/// Payload of the end record: records and bytes.
const END_LEN: usize = 2 * size_of::<u64>();

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordType {
    Header,
    State,
    End,
}

impl RecordType {
    fn number(self) -> u32 {
        match self {
            Self::Header => 1,
            Self::State => 2,
            Self::End => 3,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Header, Self::State, Self::End]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    /// The lengths a payload may have, in bytes.
    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Header => 1..=MAX_IDENTITY_LEN,
            Self::State => 1..=MAX_CHUNK_LEN,
            Self::End => END_LEN..=END_LEN,
        }
    }
}

/// Why a stream was refused. The device that it was meant for is as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// It does not begin as a stream does.
    #[error("this is not a pagetrail migration stream")]
    NotAStream,
    /// The framing has a version that is not known here.
    #[error(
        "the stream has version {0}, and this program reads version {VERSION}: use the same release at both ends"
    )]
    UnknownVersion(u32),
    /// A record's type is not known here.
    #[error("record {record} has the unknown type {number}")]
    UnknownRecord {
        /// Which record, from 0.
        record: u64,
        /// Its type.
        number: u32,
    },
    /// A record that is known, where it may not be.
    #[error("record {record} is out of place")]
    OutOfPlace {
        /// Which record, from 0.
        record: u64,
    },
    /// A record is shorter or longer than its type may be.
    #[error("record {record} is {len} bytes long, which its type cannot be")]
    BadLength {
        /// Which record, from 0.
        record: u64,
        /// Bytes.
        len: u32,
    },
    /// A checksum does not match: the stream was damaged on its way.
    #[error("the stream is damaged in or before record {record}: the checksum does not match")]
    Damaged {
        /// Which record, from 0.
        record: u64,
    },
    /// The header record is not an identity.
    #[error("the header record cannot be read: {0}")]
    BadHeader(String),
    /// The stream is another device's.
    #[error("the stream is for another device: {0}")]
    OtherDevice(Differences),
    /// The state is longer than a device's may be.
    #[error("the device's state is longer than {MAX_STATE_LEN} bytes")]
    TooLong,
    /// The end record speaks of a longer or shorter stream.
    #[error("the end record does not match the stream before it")]
    EndMismatch,
    /// Bytes after the end.
    #[error("there are bytes after the end of the stream")]
    TrailingBytes,
    /// The bytes stop before the end record.
    #[error("the stream stops after {bytes} bytes, before its end")]
    Truncated {
        /// Bytes that arrived.
        bytes: u64,
    },
    /// The device refused the state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl StreamError {
    /// What the client is told: `EINVAL` where it did the wrong thing, `EBADMSG` where the stream was damaged on its way.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotAStream | Self::UnknownVersion(_) | Self::OtherDevice(_) | Self::Restore(_) => {
                Errno::INVAL
            }
            _ => Errno::BADMSG,
        }
    }
}

fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(identity, &mut bytes)
        .expect("strings and integers have a CBOR form, and a Vec takes it");
    bytes
}

fn decode_identity(mut bytes: &[u8]) -> Result<Identity, StreamError> {
    let identity =
        ciborium::from_reader(&mut bytes).map_err(|error| StreamError::BadHeader(error.to_string()))?;
    if bytes.is_empty() {
        return Ok(identity);
    }
    Err(StreamError::BadHeader(format!(
        "{} bytes are left over",
        bytes.len()
    )))
}

#[cfg(test)]
mod tests;
