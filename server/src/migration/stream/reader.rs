//! Reading a stream.

use super::{
    CRC_LEN, Differences, MAGIC, MAX_STATE_LEN, PROLOGUE_LEN, RECORD_HEADER_LEN, RecordType, StreamError,
    VERSION, decode_identity,
};
use crate::device::Identity;

/// A stream on its way in.
///
/// After an error every further byte is refused with the same error: a stream cannot be mended, only begun anew.
#[derive(Debug)]
pub struct Incoming {
    here: Identity,
    expecting: Expecting,
    /// What has arrived of the part that is expected.
    part: Vec<u8>,
    state: Vec<u8>,
    /// Records that have arrived whole.
    records: u64,
    /// Bytes of the parts that have arrived whole.
    bytes: u64,
    /// CRC-32C of those bytes without the checksums among them.
    checksum: u32,
}

/// What comes next.
#[derive(Debug)]
enum Expecting {
    Prologue,
    RecordHeader,
    Payload { kind: RecordType, len: usize },
    Nothing,
    Failed(StreamError),
}

/// What a piece of a stream has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Incomplete,
    /// The stream is complete and valid, and this is the device's state. Given once.
    Complete(Vec<u8>),
}

/// What a reader that is given up has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Not one byte.
    Untouched,
    /// A whole stream.
    Complete,
}

impl Incoming {
    /// A reader for streams of a device like the one `here`.
    pub fn new(here: Identity) -> Self {
        Self {
            here,
            expecting: Expecting::Prologue,
            part: Vec::new(),
            state: Vec::new(),
            records: 0,
            bytes: 0,
            checksum: 0,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`StreamError`], then and from then on. Bytes after the end record are an error, in the same piece or a later one.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, StreamError> {
        self.take(bytes).map_err(|error| self.fail(error))
    }

    /// Takes what has arrived of the state, checked and in order, and was not taken before: for a device that does not wait for
    /// all of it. Without this it is given when the stream is complete, and may not be longer than [`MAX_STATE_LEN`].
    pub fn take_arrived(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state)
    }

    /// Makes the stream a failed one, for a reason found outside of it.
    pub fn fail(&mut self, error: StreamError) -> StreamError {
        self.part = Vec::new();
        self.state = Vec::new();
        self.expecting = Expecting::Failed(error.clone());
        error
    }

    /// Whether the reader may be left.
    ///
    /// # Errors
    ///
    /// [`StreamError::Truncated`] in the middle of a stream, or the error that [`push`](Self::push) has given.
    pub fn leave(&self) -> Result<Left, StreamError> {
        match &self.expecting {
            Expecting::Failed(error) => Err(error.clone()),
            Expecting::Nothing => Ok(Left::Complete),
            Expecting::Prologue if self.part.is_empty() => Ok(Left::Untouched),
            _ => Err(StreamError::Truncated {
                bytes: self.bytes + self.part.len() as u64,
            }),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Progress, StreamError> {
        let mut complete = false;
        while !bytes.is_empty() {
            let missing = self.part_len()? - self.part.len();
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if now.len() == missing {
                let part = std::mem::take(&mut self.part);
                self.expecting = self.part_arrived(&part)?;
                complete = matches!(self.expecting, Expecting::Nothing);
            }
        }
        if complete {
            Ok(Progress::Complete(std::mem::take(&mut self.state)))
        } else {
            Ok(Progress::Incomplete)
        }
    }

    /// Bytes of the part that is expected; at most a record, so that what is kept of it is bounded.
    fn part_len(&self) -> Result<usize, StreamError> {
        match &self.expecting {
            Expecting::Prologue => Ok(PROLOGUE_LEN),
            Expecting::RecordHeader => Ok(RECORD_HEADER_LEN),
            Expecting::Payload { len, .. } => Ok(len + CRC_LEN),
            Expecting::Nothing => Err(StreamError::TrailingBytes),
            Expecting::Failed(error) => Err(error.clone()),
        }
    }

    fn part_arrived(&mut self, part: &[u8]) -> Result<Expecting, StreamError> {
        let next = match self.expecting {
            Expecting::Prologue => {
                check_prologue(part)?;
                self.checksum = crc32c::crc32c(part);
                Expecting::RecordHeader
            }
            Expecting::RecordHeader => self.record_header(part)?,
            Expecting::Payload { kind, .. } => {
                let payload = self.checked(part)?;
                let next = self.payload(kind, payload)?;
                self.records += 1;
                next
            }
            Expecting::Nothing => return Err(StreamError::TrailingBytes),
            Expecting::Failed(ref error) => return Err(error.clone()),
        };
        self.bytes += part.len() as u64;
        Ok(next)
    }

    /// The part without the checksum at its end, which matches.
    fn checked<'a>(&mut self, part: &'a [u8]) -> Result<&'a [u8], StreamError> {
        let (content, _) = part.split_at(part.len() - CRC_LEN);
        self.checksum = crc32c::crc32c_append(self.checksum, content);
        if self.checksum == u32_at(part, content.len()) {
            return Ok(content);
        }
        Err(StreamError::Damaged { record: self.records })
    }

    fn record_header(&mut self, part: &[u8]) -> Result<Expecting, StreamError> {
        let record = self.records;
        let content = self.checked(part)?;
        let (number, len) = (u32_at(content, 0), u32_at(content, 4));
        let kind = RecordType::from_number(number).ok_or(StreamError::UnknownRecord { record, number })?;
        if (kind == RecordType::Header) != (record == 0) {
            return Err(StreamError::OutOfPlace { record });
        }
        if !kind.lengths().contains(&(len as usize)) {
            return Err(StreamError::BadLength { record, len });
        }
        Ok(Expecting::Payload {
            kind,
            len: len as usize,
        })
    }

    fn payload(&mut self, kind: RecordType, payload: &[u8]) -> Result<Expecting, StreamError> {
        match kind {
            RecordType::Header => self.check_identity(payload)?,
            RecordType::State => self.keep(payload)?,
            RecordType::End => {
                self.check_end(payload)?;
                return Ok(Expecting::Nothing);
            }
        }
        Ok(Expecting::RecordHeader)
    }

    /// The end record speaks of what is before it, its own header not included.
    fn check_end(&self, payload: &[u8]) -> Result<(), StreamError> {
        let bytes = self.bytes - RECORD_HEADER_LEN as u64;
        if u64_at(payload, 0) == self.records && u64_at(payload, 8) == bytes {
            return Ok(());
        }
        Err(StreamError::EndMismatch)
    }

    fn check_identity(&self, payload: &[u8]) -> Result<(), StreamError> {
        let stream = decode_identity(payload)?;
        match Differences::between(&self.here, &stream) {
            None => Ok(()),
            Some(differences) => Err(StreamError::OtherDevice(differences)),
        }
    }

    fn keep(&mut self, payload: &[u8]) -> Result<(), StreamError> {
        if self.state.len() + payload.len() > MAX_STATE_LEN {
            return Err(StreamError::TooLong);
        }
        self.state.extend_from_slice(payload);
        Ok(())
    }
}

fn check_prologue(part: &[u8]) -> Result<(), StreamError> {
    let (magic, _) = part.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(StreamError::NotAStream);
    }
    match u32_at(part, MAGIC.len()) {
        VERSION => Ok(()),
        other => Err(StreamError::UnknownVersion(other)),
    }
}

/// The little-endian integer at `offset`. Callers hand in whole parts, whose layout holds it.
fn u32_at(part: &[u8], offset: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&part[offset..offset + 4]);
    u32::from_le_bytes(bytes)
}

/// See [`u32_at`].
fn u64_at(part: &[u8], offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&part[offset..offset + 8]);
    u64::from_le_bytes(bytes)
}
