//! A descriptor at work: validated once, advanced by chunks, its progress kept where a migration finds it.

use super::events::Fault;
use super::layout::Descriptor;
use super::spec::{self, ErrorCode, opcode};
use crate::guest::{Access, Dma};

/// Bytes that one step moves at most. Short, so that a device is quick to quiesce.
pub(super) const CHUNK: usize = 64 * 1024;

/// A fetched descriptor that has no completion yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    /// The descriptor's free-running index.
    pub(super) index: u32,
    /// Returned in the completion.
    pub(super) cookie: u64,
    /// What its completion does.
    pub(super) notify: Notify,
    /// What is to be done, and how much of it is.
    pub(super) operation: Operation,
}

/// What a completion does besides being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notify {
    /// Nothing.
    Silent,
    /// Raises the completion cause.
    Raise,
}

/// What a descriptor asks for, and how far it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// The descriptor is not valid: completes with [`ErrorCode::BadDescriptor`].
    Refused,
    /// Nothing.
    Nop,
    /// Copies from `source` to `dest`.
    Copy { source: u64, dest: u64, span: Span },
    /// Repeats `pattern` from `dest` on.
    Fill { pattern: u64, dest: u64, span: Span },
    /// CRC-32C of what lies at `source`; `crc` is that of the bytes done.
    Crc { source: u64, span: Span, crc: u32 },
}

/// Bytes to do and bytes done. The bytes done are whole chunks, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    length: u64,
    done: u64,
}

impl Span {
    /// `None` when the length is above the largest, or `done` is not where a step can have ended.
    pub(super) fn new(length: u64, done: u64) -> Option<Self> {
        let is_step_end = done == length || (done < length && done.is_multiple_of(CHUNK as u64));
        (length <= spec::MAX_LENGTH && is_step_end).then_some(Self { length, done })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Bytes that the next step moves; zero when all is done.
    fn next(&self) -> usize {
        (self.length - self.done).min(CHUNK as u64) as usize
    }

    /// Checks the whole of `iova` before the first byte is touched.
    fn check(&self, dma: &Dma, iova: u64, access: Access) -> Result<(), Fault> {
        if self.done > 0 || self.length == 0 {
            return Ok(());
        }
        Ok(dma.check(iova, self.length, access)?)
    }

    /// Where the next step begins, from `iova` on.
    fn at(&self, iova: u64) -> Result<u64, Fault> {
        iova.checked_add(self.done)
            .ok_or(Fault::Error(ErrorCode::BadAddress))
    }
}

/// What a step of [`Work`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to do.
    More,
    /// The completion is due.
    Finished(Outcome),
    /// DMA is stopped: the step did not happen.
    Stopped,
}

/// What a completion says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `RESULT`.
    pub(super) result: u64,
    /// `STATUS`.
    pub(super) error: Option<ErrorCode>,
}

impl Work {
    /// The work that a descriptor asks for.
    pub(super) fn new(index: u32, descriptor: &Descriptor) -> Self {
        let notify = match descriptor.flags.get() & spec::FLAG_NOTIFY {
            0 => Notify::Silent,
            _ => Notify::Raise,
        };
        Self {
            index,
            cookie: descriptor.cookie.get(),
            notify,
            operation: Operation::new(descriptor).unwrap_or(Operation::Refused),
        }
    }

    /// Does the next chunk, by way of `buffer`, which holds one. When all is done, says so every time it is called.
    pub(super) fn advance(&mut self, dma: &Dma, buffer: &mut [u8]) -> Progress {
        match self.operation.advance(dma, buffer) {
            Ok(()) if self.operation.is_done() => Progress::Finished(Outcome {
                result: self.operation.result(),
                error: None,
            }),
            Ok(()) => Progress::More,
            Err(Fault::Stopped) => Progress::Stopped,
            Err(Fault::Error(error)) => Progress::Finished(Outcome {
                result: self.operation.done(),
                error: Some(error),
            }),
        }
    }
}

impl Operation {
    /// `None` when the descriptor is not valid.
    fn new(descriptor: &Descriptor) -> Option<Self> {
        if descriptor.flags.get() & !spec::FLAG_NOTIFY != 0 || descriptor.reserved != [0; 24] {
            return None;
        }
        let (source, dest) = (descriptor.source.get(), descriptor.dest.get());
        let span = Span::new(descriptor.length.get(), 0)?;
        match descriptor.opcode.get() {
            opcode::NOP => Some(Self::Nop),
            opcode::COPY => Some(Self::Copy { source, dest, span }),
            opcode::FILL => Some(Self::Fill {
                pattern: source,
                dest,
                span,
            }),
            opcode::CRC => Some(Self::Crc { source, span, crc: 0 }),
            _ => None,
        }
    }

    /// Does the next chunk.
    fn advance(&mut self, dma: &Dma, buffer: &mut [u8]) -> Result<(), Fault> {
        match self {
            Self::Refused => return Err(Fault::Error(ErrorCode::BadDescriptor)),
            Self::Nop => {}
            Self::Copy { source, dest, span } => {
                span.check(dma, *source, Access::Read)?;
                span.check(dma, *dest, Access::Write)?;
                let len = span.next();
                if len > 0 {
                    dma.copy(span.at(*source)?, span.at(*dest)?, len)?;
                }
                span.done += len as u64;
            }
            Self::Fill { pattern, dest, span } => {
                span.check(dma, *dest, Access::Write)?;
                let chunk = &mut buffer[..span.next()];
                if !chunk.is_empty() {
                    repeat(*pattern, chunk);
                    dma.write(span.at(*dest)?, chunk)?;
                }
                span.done += chunk.len() as u64;
            }
            Self::Crc { source, span, crc } => {
                span.check(dma, *source, Access::Read)?;
                let chunk = &mut buffer[..span.next()];
                if !chunk.is_empty() {
                    dma.read(span.at(*source)?, chunk)?;
                    *crc = crc32c::crc32c_append(*crc, chunk);
                }
                span.done += chunk.len() as u64;
            }
        }
        Ok(())
    }

    fn span(&self) -> Option<&Span> {
        match self {
            Self::Refused | Self::Nop => None,
            Self::Copy { span, .. } | Self::Fill { span, .. } | Self::Crc { span, .. } => Some(span),
        }
    }

    fn done(&self) -> u64 {
        self.span().map_or(0, Span::done)
    }

    fn is_done(&self) -> bool {
        self.span().is_none_or(|span| span.done == span.length)
    }

    fn result(&self) -> u64 {
        match self {
            Self::Crc { crc, .. } => u64::from(*crc),
            _ => self.done(),
        }
    }
}

/// Fills `bytes` with the pattern's little-endian bytes.
fn repeat(pattern: u64, bytes: &mut [u8]) {
    let pattern = pattern.to_le_bytes();
    let (words, rest) = bytes.as_chunks_mut::<8>();
    words.fill(pattern);
    rest.copy_from_slice(&pattern[..rest.len()]);
}
