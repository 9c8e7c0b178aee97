//! Interrupts with a client's eventfds, for tests of devices.
//!
//! The [`Interrupts`] and the eventfds are real ones; what is missing is the wire between them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Interrupts, Irq, IrqAction, IrqData, SetIrqs};
use crate::device::{Bar, IrqCounts, Msix};

/// A client's end of a device's interrupts: one eventfd for each vector of one enabled index.
#[derive(Debug)]
pub struct Client {
    interrupts: Interrupts,
    index: u32,
    eventfds: Vec<OwnedFd>,
}

impl Client {
    /// A device with INTx, enabled.
    ///
    /// # Errors
    ///
    /// When the host has no file descriptors left.
    pub fn intx() -> io::Result<Self> {
        Self::connected(0, 1)
    }

    /// A device with MSI, `vectors` of 32 enabled.
    ///
    /// # Errors
    ///
    /// As for [`intx`](Self::intx).
    pub fn msi(vectors: u32) -> io::Result<Self> {
        Self::connected(1, vectors)
    }

    /// A device with MSI-X, `vectors` of 64 connected.
    ///
    /// # Errors
    ///
    /// As for [`intx`](Self::intx).
    pub fn msix(vectors: u32) -> io::Result<Self> {
        Self::connected(2, vectors)
    }

    fn connected(index: u32, vectors: u32) -> io::Result<Self> {
        let counts = IrqCounts {
            intx: 1,
            msi: 32,
            msix: Some(Msix {
                vectors: 64,
                bar: Bar::Bar4,
            }),
        };
        let eventfds = (0..vectors)
            .map(|_| new_eventfd())
            .collect::<io::Result<Vec<_>>>()?;
        let client = Self {
            interrupts: Interrupts::new(counts),
            index,
            eventfds,
        };
        client.connect()?;
        Ok(client)
    }

    /// The device's handle.
    pub fn irq(&self) -> Irq {
        self.interrupts.irq()
    }

    /// The session's side.
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Connects all vectors.
    ///
    /// # Errors
    ///
    /// What [`Interrupts::set`] says.
    pub fn connect(&self) -> io::Result<()> {
        let fds = self
            .eventfds
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<io::Result<_>>()?;
        self.set(IrqAction::Trigger, IrqData::Eventfds(fds))
    }

    /// Does `action` to all vectors.
    ///
    /// # Errors
    ///
    /// What [`Interrupts::set`] says.
    pub fn act(&self, action: IrqAction) -> io::Result<()> {
        self.set(action, IrqData::None)
    }

    fn set(&self, action: IrqAction, data: IrqData) -> io::Result<()> {
        let count = self.eventfds.len() as u32;
        self.interrupts
            .set(SetIrqs {
                index: self.index,
                start: 0,
                count,
                action,
                data,
            })
            .map_err(|error| io::Error::new(io::Error::from(error.errno()).kind(), error))
    }

    /// How often `vector` was signalled since it was last asked.
    pub fn take(&self, vector: usize) -> u64 {
        take(&self.eventfds[vector])
    }

    /// Waits until `vector` is signalled, and returns how often it was: 0 when it was not in time.
    pub fn wait(&self, vector: usize, timeout: Duration) -> u64 {
        wait(&self.eventfds[vector], timeout)
    }
}

/// A new eventfd that does not block.
pub(super) fn new_eventfd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// How often `eventfd` was signalled since it was last asked.
pub(super) fn take(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(8) => u64::from_ne_bytes(count),
        _ => 0,
    }
}

/// Waits until `eventfd` is signalled, and returns how often it was: 0 when it was not in time.
pub(super) fn wait(eventfd: &OwnedFd, timeout: Duration) -> u64 {
    let timeout = Timespec::try_from(timeout).unwrap_or_default();
    // An interrupted or failed wait is the same as none: the count decides.
    let _ = poll(&mut [PollFd::new(eventfd, PollFlags::IN)], Some(&timeout));
    take(eventfd)
}
