//! The kernel's migration data, framed as every device's state is (`migration/stream`).
//!
//! The header says which device the data is of, and the records have checksums, so that another device's stream and a damaged one are
//! refused before the driver sees them; the end record says that nothing is missing. The data itself is the driver's own and is
//! passed on as it comes: it may be far larger than memory should hold.

use std::io;

use rustix::io::Errno;

use super::kernel::MigrationFile;
use crate::device::{Identity, RestoreError};
use crate::migration::stream::{Incoming, Left, Outgoing, Progress, StreamError};
use crate::migration::{MigState, PrecopyInfo};

/// The most that is read of the kernel at once, in bytes.
const CHUNK: usize = 256 << 10;

/// A stream that is being read by the client.
#[derive(Debug)]
pub(super) struct Saving {
    file: Box<dyn MigrationFile>,
    framed: Outgoing,
    end: End,
}

/// Whether the end record has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ahead,
    Written,
}

impl Saving {
    /// A new stream of the data of `file`.
    pub(super) fn new(file: Box<dyn MigrationFile>, identity: &Identity) -> Self {
        Self {
            file,
            framed: Outgoing::new(identity),
            end: End::Ahead,
        }
    }

    /// Reads the next bytes of the stream. Before the device has stopped, fewer than `out` takes are what there is at present; in
    /// STOP_COPY they are the last ones, however little the driver gives at a time.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(super) fn read(&mut self, out: &mut [u8], state: MigState) -> io::Result<usize> {
        let mut done = 0;
        loop {
            if self.framed.remaining() == 0 && self.end == End::Ahead {
                self.fetch(state)?;
            }
            let read = self.framed.read(&mut out[done..]);
            done += read;
            if done == out.len() || read == 0 || state != MigState::StopCopy {
                return Ok(done);
            }
        }
    }

    /// Takes a record's worth from the kernel: as much as it has, for a client that reads little at a time would make many records.
    fn fetch(&mut self, state: MigState) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        match self.file.read(&mut chunk) {
            Ok(0) if state == MigState::StopCopy => {
                self.framed.end();
                self.end = End::Written;
            }
            Ok(read) if read > 0 => self.framed.record_state(&chunk[..read]),
            Ok(_) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOMSG | Errno::AGAIN) if state != MigState::StopCopy => {}
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// What can be read before the device has stopped.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(super) fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        let info = self.file.precopy_info()?;
        Ok(PrecopyInfo {
            initial_bytes: info.initial_bytes.saturating_add(self.framed.remaining()),
            dirty_bytes: info.dirty_bytes,
        })
    }

    /// Upper bound of the stream's bytes from here on, when the driver has `data` more.
    pub(super) fn bytes_to_end(&self, data: u64) -> u64 {
        self.framed.remaining().saturating_add(framed(data))
    }
}

/// A stream that is being written by the client.
#[derive(Debug)]
pub(super) struct Loading {
    file: Box<dyn MigrationFile>,
    framed: Incoming,
}

impl Loading {
    /// A stream whose data goes to `file`.
    pub(super) fn new(file: Box<dyn MigrationFile>, identity: Identity) -> Self {
        Self {
            file,
            framed: Incoming::new(identity),
        }
    }

    /// Takes the next bytes, and gives the driver what they are known to carry.
    ///
    /// # Errors
    ///
    /// [`StreamError`], then and from then on.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let data = match self.framed.push(bytes)? {
            Progress::Complete(rest) => rest,
            Progress::Incomplete => self.framed.take_arrived(),
        };
        let written = self.write_all(&data);
        written.map_err(|error| {
            let refused = RestoreError(format!("the device's driver does not take it: {error}"));
            self.framed.fail(refused.into())
        })
    }

    fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.file.write(data)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => data = &data[written..],
            }
        }
        Ok(())
    }

    /// Whether the device may leave with what it has: a whole stream, or nothing.
    ///
    /// # Errors
    ///
    /// [`StreamError`] as of [`Incoming::leave`].
    pub(super) fn leave(&self) -> Result<Left, StreamError> {
        self.framed.leave()
    }
}

/// Upper bound of a whole stream with `data` bytes of the driver's.
pub(super) fn whole_len(identity: &Identity, data: u64) -> u64 {
    Outgoing::whole_len(identity, 0).saturating_add(framed(data))
}

/// Upper bound of the records for `data` bytes, with the end record. A driver gives a page at least at a time, the last time excepted.
fn framed(data: u64) -> u64 {
    const LEAST: u64 = 4096;
    let records = data.div_ceil(LEAST) + 2;
    let overhead = records * Outgoing::RECORD_OVERHEAD + Outgoing::bytes_to_finish(0);
    data.saturating_add(overhead)
}

#[cfg(test)]
mod tests;
