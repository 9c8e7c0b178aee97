//! Writing a stream.

use super::{
    CRC_LEN, END_LEN, MAGIC, MAX_CHUNK_LEN, MAX_STATE_LEN, PROLOGUE_LEN, RECORD_HEADER_LEN, RecordType,
    VERSION, encode_identity,
};
use crate::device::{Identity, SaveError};

/// A stream on its way out: what was put in and is not read yet.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// How much of `bytes` has been read.
    read: usize,
    /// Bytes of the stream that are no longer in `bytes`.
    gone: u64,
    records: u64,
    /// CRC-32C of the stream so far without the checksums in it.
    checksum: u32,
}

impl Outgoing {
    /// A stream that holds its header.
    pub fn new(identity: &Identity) -> Self {
        let mut stream = Self {
            bytes: Vec::new(),
            read: 0,
            gone: 0,
            records: 0,
            checksum: 0,
        };
        stream.put(&MAGIC);
        stream.put(&VERSION.to_le_bytes());
        stream.record(RecordType::Header, &encode_identity(identity));
        stream
    }

    /// Adds the whole state and the end record.
    ///
    /// # Errors
    ///
    /// [`SaveError`] when `state` is longer than [`MAX_STATE_LEN`]; the stream is as it was.
    pub fn finish(&mut self, state: &[u8]) -> Result<(), SaveError> {
        if state.len() > MAX_STATE_LEN {
            return Err(SaveError(format!(
                "{} bytes are more than a stream carries, {MAX_STATE_LEN}",
                state.len()
            )));
        }
        self.bytes.reserve(framed_len(state.len()));
        self.record_state(state);
        self.end();
        Ok(())
    }

    /// Adds a part of the state, of any length.
    pub fn record_state(&mut self, part: &[u8]) {
        for chunk in part.chunks(MAX_CHUNK_LEN) {
            self.record(RecordType::State, chunk);
        }
    }

    /// Adds the end record.
    pub fn end(&mut self) {
        let mut end = Vec::with_capacity(END_LEN);
        end.extend(self.records.to_le_bytes());
        end.extend((self.gone + self.bytes.len() as u64).to_le_bytes());
        self.record(RecordType::End, &end);
    }

    /// Moves the next bytes into `out`, as many as there are and fit.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let left = &self.bytes[self.read..];
        let len = left.len().min(out.len());
        out[..len].copy_from_slice(&left[..len]);
        self.read += len;
        if self.read == self.bytes.len() {
            self.gone += self.read as u64;
            self.bytes.clear();
            self.read = 0;
        }
        len
    }

    /// Bytes that can be read now.
    pub fn remaining(&self) -> u64 {
        (self.bytes.len() - self.read) as u64
    }

    /// Bytes that a record takes besides what it carries.
    pub const RECORD_OVERHEAD: u64 = (RECORD_HEADER_LEN + CRC_LEN) as u64;

    /// Bytes that [`finish`](Self::finish) adds for a state of at most `state_len` bytes.
    pub fn bytes_to_finish(state_len: usize) -> u64 {
        framed_len(state_len) as u64
    }

    /// Bytes of a whole stream for a state of at most `state_len` bytes.
    pub fn whole_len(identity: &Identity, state_len: usize) -> u64 {
        let header = PROLOGUE_LEN + RECORD_HEADER_LEN + encode_identity(identity).len() + CRC_LEN;
        (header + framed_len(state_len)) as u64
    }

    fn record(&mut self, kind: RecordType, payload: &[u8]) {
        debug_assert!(
            kind.lengths().contains(&payload.len()),
            "{kind:?} of {} bytes",
            payload.len()
        );
        self.put(&kind.number().to_le_bytes());
        self.put(&(payload.len() as u32).to_le_bytes());
        self.put_checksum();
        self.put(payload);
        self.put_checksum();
        self.records += 1;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.bytes.extend_from_slice(bytes);
    }

    fn put_checksum(&mut self) {
        self.bytes.extend(self.checksum.to_le_bytes());
    }
}

/// State and end records.
fn framed_len(state_len: usize) -> usize {
    let overhead = RECORD_HEADER_LEN + CRC_LEN;
    state_len + state_len.div_ceil(MAX_CHUNK_LEN) * overhead + overhead + END_LEN
}
