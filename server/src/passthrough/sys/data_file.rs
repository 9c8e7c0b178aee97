//! [`DataFile`]: what a migrating device's data is read from or written to.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, retry_on_intr};

use super::ioctl::{Request, answer, call};
use crate::migration::PrecopyInfo;
use crate::passthrough::kernel::MigrationFile;
use crate::wire::{bytes, migration};

/// How long a driver's data is waited for. Shorter than the 5 s after which QEMU gives a message up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The file of a migrating device's data.
#[derive(Debug)]
pub(super) struct DataFile {
    file: File,
    patience: Duration,
}

impl DataFile {
    pub(super) fn new(file: OwnedFd) -> Self {
        Self::with_patience(file, PATIENCE)
    }

    pub(super) fn with_patience(file: OwnedFd, patience: Duration) -> Self {
        // A driver may wait for its device for as long as that takes. One that does not know of this does not wait at all.
        if let Err(error) = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK))
        {
            tracing::warn!(%error, "migration data may be waited for without a limit");
        }
        let file = file.into();
        Self { file, patience }
    }

    /// Repeats what would block until the file is ready for it, but not for ever: one that is always ready may still have nothing.
    pub(super) fn patiently<T>(
        &self,
        ready: PollFlags,
        mut attempt: impl FnMut(&File) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            match retry_on_intr(|| attempt(&self.file)) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::AGAIN.into());
            }
            let mut file = [PollFd::new(&self.file, ready)];
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            if retry_on_intr(|| poll(&mut file, Some(&left)))? == 0 {
                return Err(Errno::AGAIN.into());
            }
        }
    }
}

impl MigrationFile for DataFile {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |file| rustix::io::read(file, &mut *out))
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |file| rustix::io::write(file, data))
    }

    fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        let mut argument = bytes(&migration::PrecopyInfo {
            argsz: size_of::<migration::PrecopyInfo>() as u32,
            flags: 0,
            initial_bytes: 0,
            dirty_bytes: 0,
        });
        call(&self.file, Request::MIG_GET_PRECOPY_INFO, &mut argument)?;
        let info: migration::PrecopyInfo = answer(&argument)?;
        Ok(PrecopyInfo {
            initial_bytes: info.initial_bytes,
            dirty_bytes: info.dirty_bytes,
        })
    }
}
