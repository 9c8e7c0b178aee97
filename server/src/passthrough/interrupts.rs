//! [`Interrupts`]: the client's eventfds, given to the kernel.
//!
//! The kernel signals them itself, and a VMM may have KVM inject what they say: no interrupt passes through this process. Its own are
//! only the two that are about the device as a whole: an error, and the host's wish to have the device back. It takes those itself, so
//! that somebody acts on them whatever the client does, and passes them on.

mod watch;

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::kernel::{self, Device};
use crate::device::IrqCounts;
use crate::irq::{self, IrqAction, IrqIndex, IrqInfo, SetIrqs};
use watch::Watch;

/// The interrupts of one connection.
#[derive(Debug)]
pub(super) struct Interrupts {
    device: Arc<dyn Device>,
    /// How many kinds there are.
    kinds: u32,
    /// Those of the device as a whole, as the client has connected them.
    whole: Arc<irq::Interrupts>,
    _watch: Watch,
}

/// What happened to the device as a whole, with nobody at the client's side who was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unheard {
    /// An error that it cannot correct.
    Error,
    /// The host wants it back.
    Request,
}

impl Interrupts {
    /// None is enabled. `unheard` is called, on a thread of its own, for what the client does not want to be told.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        name: &str,
        unheard: impl Fn(Unheard) + Send + 'static,
    ) -> io::Result<Self> {
        let whole = Arc::new(irq::Interrupts::new(IrqCounts::default()));
        Ok(Self {
            kinds: device.info()?.irqs,
            _watch: Watch::start(device, name, Arc::clone(&whole), unheard)?,
            device: Arc::clone(device),
            whole,
        })
    }

    /// GET_IRQ_INFO.
    ///
    /// # Errors
    ///
    /// What the client gets.
    pub(super) fn info(&self, index: u32) -> Result<IrqInfo, Errno> {
        if index >= self.kinds {
            return Err(Errno::INVAL);
        }
        match self.device.irq(index) {
            Ok(info) => Ok(info),
            // So the kernel has it for what this device has not.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                Ok(IrqInfo { flags: 0, count: 0 })
            }
            Err(error) => Err(errno(&error)),
        }
    }

    /// SET_IRQS.
    ///
    /// # Errors
    ///
    /// What the client gets: the kernel's answer, except for what must not reach it.
    pub(super) fn set(&self, request: SetIrqs) -> Result<(), Errno> {
        if let Some(IrqIndex::Err | IrqIndex::Req) = IrqIndex::from_wire(request.index) {
            if self.info(request.index)?.count == 0 {
                return Err(Errno::INVAL);
            }
            return self.whole.set(request).map_err(|error| error.errno());
        }
        let available = self.info(request.index)?.count;
        let end = request.start.checked_add(request.count);
        if end.is_none_or(|end| end > available) {
            return Err(Errno::INVAL);
        }
        let count = request.count as usize;
        let data = match &request.data {
            irq::IrqData::None => kernel::IrqData::None,
            irq::IrqData::Bool(flags) if flags.len() == count => kernel::IrqData::Bool(flags),
            irq::IrqData::Eventfds(fds) if fds.is_empty() || fds.len() == count => {
                kernel::IrqData::Eventfds(fds)
            }
            irq::IrqData::Bool(_) | irq::IrqData::Eventfds(_) => return Err(Errno::INVAL),
        };
        let request = kernel::SetIrqs {
            index: request.index,
            start: request.start,
            count: request.count,
            action: request.action,
            data,
        };
        self.device.set_irqs(&request).map_err(|error| errno(&error))
    }

    /// Takes every eventfd away from the kernel.
    pub(super) fn disable(&self) {
        for index in 0..self.kinds.min(IrqIndex::Err as u32) {
            disable(&*self.device, index);
        }
    }
}

/// Disables a kind of interrupts. One that is not enabled is refused, and stays as it is.
fn disable(device: &dyn Device, index: u32) {
    let request = kernel::SetIrqs {
        index,
        start: 0,
        count: 0,
        action: IrqAction::Trigger,
        data: kernel::IrqData::None,
    };
    let _ = device.set_irqs(&request);
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
