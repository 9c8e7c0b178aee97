//! [`Vectors`]: the vectors of a kind whose number the kernel fixes when it is enabled (`VFIO_IRQ_INFO_NORESIZE`): those of MSI, and of
//! MSI-X on some hosts.
//!
//! The kernel wants to be told of all of them in one request. A message of vfio-user carries 8 descriptors (`max_msg_fds`), so that a
//! client with more vectors sends further messages, which the kernel would refuse. The eventfds are kept here instead, and a request for
//! vectors beyond those that are enabled has the kind disabled, and enabled anew with all.
//!
//! In between the device has no way to interrupt, and what it had to say is lost. So every vector is signalled once afterwards: a driver
//! that is told of nothing looks and finds nothing, while one that is not told waits for ever.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::disable;
use crate::irq::IrqAction;
use crate::passthrough::kernel::{Device, IrqData, SetIrqs};

/// The eventfds of those that are enabled.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    /// As many as the kernel has enabled; none if the kind is disabled.
    enabled: Vec<Option<OwnedFd>>,
}

impl Vectors {
    /// Gives the vectors of kind `index` from `start` on their eventfds, or takes them away.
    ///
    /// # Errors
    ///
    /// What the kernel said; as far as it lets, everything is as it was then.
    pub(super) fn connect(
        &mut self,
        device: &dyn Device,
        index: u32,
        start: u32,
        eventfds: Vec<Option<OwnedFd>>,
    ) -> io::Result<()> {
        let first = start as usize;
        let enabled = self.enabled.len().max(first + eventfds.len());
        if self.enabled.is_empty() || enabled == self.enabled.len() {
            trigger(device, index, start, &borrowed(&eventfds))?;
        } else {
            let mut all = borrowed(&self.enabled);
            all.resize(enabled, None);
            all[first..].clone_from_slice(&borrowed(&eventfds));
            if let Err(error) = enlarge(device, index, &all) {
                self.restore(device, index);
                return Err(error);
            }
        }
        self.enabled.resize_with(enabled, || None);
        for (vector, eventfd) in self.enabled[first..].iter_mut().zip(eventfds) {
            *vector = eventfd;
        }
        Ok(())
    }

    /// The kind is disabled.
    pub(super) fn forget(&mut self) {
        self.enabled.clear();
    }

    /// Enables the kind as it was.
    fn restore(&mut self, device: &dyn Device, index: u32) {
        if let Err(error) = enlarge(device, index, &borrowed(&self.enabled)) {
            tracing::error!(%error, index, "the device's interrupts are lost until they are enabled anew");
            self.forget();
        }
    }
}

/// Disables a kind, and enables it with `eventfds`.
fn enlarge(device: &dyn Device, index: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
    disable(device, index);
    trigger(device, index, 0, eventfds)?;
    device.set_irqs(&SetIrqs {
        index,
        start: 0,
        count: eventfds.len() as u32,
        action: IrqAction::Trigger,
        data: IrqData::None,
    })
}

/// Gives vectors their eventfds.
fn trigger(
    device: &dyn Device,
    index: u32,
    start: u32,
    eventfds: &[Option<BorrowedFd<'_>>],
) -> io::Result<()> {
    device.set_irqs(&SetIrqs {
        index,
        start,
        count: eventfds.len() as u32,
        action: IrqAction::Trigger,
        data: IrqData::Eventfds(eventfds),
    })
}

fn borrowed(eventfds: &[Option<OwnedFd>]) -> Vec<Option<BorrowedFd<'_>>> {
    eventfds
        .iter()
        .map(|eventfd| eventfd.as_ref().map(AsFd::as_fd))
        .collect()
}
