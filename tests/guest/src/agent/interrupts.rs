//! MSI-X interrupts of one device, as they reach a program.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::os::unix::fs::OpenOptionsExt;

use crate::protocol::VECTORS;

/// Counts of the interrupts that the CPU took since the device's kernel driver has it.
pub(super) struct Interrupts {
    files: Vec<File>,
    counts: [u32; VECTORS],
    /// What the counts were when the agent took the device.
    initial: [u32; VECTORS],
    /// Vectors with interrupts that nobody has waited for.
    unseen: [bool; VECTORS],
}

impl Interrupts {
    /// Opens the vectors' character devices.
    pub(super) fn open(paths: &[PathBuf; VECTORS]) -> Result<Self> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut files = Vec::new();
        for path in paths {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(nonblocking)
                .open(path)?;
            files.push(options);
        }
        let mut interrupts = Self {
            files,
            counts: [0; VECTORS],
            initial: [0; VECTORS],
            unseen: [false; VECTORS],
        };
        for vector in 0..VECTORS {
            interrupts.take(vector)?;
        }
        interrupts.initial = interrupts.counts;
        interrupts.unseen = [false; VECTORS];
        Ok(interrupts)
    }

    /// The character device of a vector; all of them map BAR 0.
    pub(super) fn file(&self) -> &File {
        &self.files[0]
    }

    /// Interrupts so far, vector by vector.
    pub(super) fn counts(&mut self) -> Result<[u64; VECTORS]> {
        let mut counts = [0; VECTORS];
        for (vector, count) in counts.iter_mut().enumerate() {
            self.take(vector)?;
            *count = u64::from(self.counts[vector].wrapping_sub(self.initial[vector]));
        }
        Ok(counts)
    }

    /// Takes the count of a vector if it has grown.
    fn take(&mut self, vector: usize) -> Result<()> {
        let mut bytes = [0; 4];
        match self.files[vector].read(&mut bytes) {
            Ok(4) => {
                self.counts[vector] = u32::from_ne_bytes(bytes);
                self.unseen[vector] = true;
                Ok(())
            }
            Ok(_) => bail!("a short count of interrupts"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for an interrupt that was not waited for yet; false when there is none in time.
    pub(super) fn wait(&mut self, vector: usize, timeout: Duration) -> Result<bool> {
        self.take(vector)?;
        if !self.unseen[vector] {
            let timeout = Timespec::try_from(timeout)?;
            let mut fds = [PollFd::new(&self.files[vector], PollFlags::IN)];
            poll(&mut fds, Some(&timeout))?;
            self.take(vector)?;
        }
        Ok(std::mem::take(&mut self.unseen[vector]))
    }
}
