//! Interrupts of a device as eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::wire::consts;

/// The ways a PCI device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IrqKind {
    /// The pin.
    Intx,
    /// Message-signalled.
    Msi,
    /// Message-signalled, with a table.
    Msix,
}

impl IrqKind {
    /// The index of `DEVICE_SET_IRQS`.
    pub fn index(self) -> u32 {
        match self {
            Self::Intx => consts::IRQ_INTX,
            Self::Msi => consts::IRQ_MSI,
            Self::Msix => consts::IRQ_MSIX,
        }
    }
}

/// The eventfds of one kind of interrupt, one for each vector.
pub struct Interrupts {
    kind: IrqKind,
    eventfds: Vec<OwnedFd>,
}

impl Interrupts {
    /// Makes `vectors` eventfds.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(kind: IrqKind, vectors: u32) -> std::io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfds = (0..vectors)
            .map(|_| eventfd(0, flags))
            .collect::<Result<_, _>>()?;
        Ok(Self { kind, eventfds })
    }

    /// Which kind this is.
    pub fn kind(&self) -> IrqKind {
        self.kind
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u32 {
        self.eventfds.len() as u32
    }

    /// The eventfds, in the order of the vectors.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.eventfds.iter().map(AsFd::as_fd).collect()
    }

    /// How often `vector` was signalled since it was last asked.
    pub fn take(&self, vector: u32) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.eventfds[vector as usize], &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Waits until `vector` is signalled, and returns how often it was: 0 when it was not in time.
    pub fn wait(&self, vector: u32, timeout: Duration) -> u64 {
        let fd = &self.eventfds[vector as usize];
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        // An interrupted or failed wait is the same as none: the count decides.
        let _ = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout));
        self.take(vector)
    }
}
