//! [`Interrupts`]: the client's eventfds, given to the kernel.
//!
//! The kernel signals them itself, and a VMM may have KVM inject what they say: no interrupt passes through this process. Its own are
//! only the two that are about the device as a whole: an error, and the host's wish to have the device back. It takes those itself, so
//! that somebody acts on them whatever the client does, and passes them on.

mod vectors;
mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::kernel::{self, Device};
use crate::device::IrqCounts;
use crate::irq::{self, INFO_NORESIZE, IrqAction, IrqIndex, IrqInfo, SetIrqs};
use vectors::Vectors;
use watch::Watch;

/// The interrupts of one connection.
#[derive(Debug)]
pub(super) struct Interrupts {
    device: Arc<dyn Device>,
    /// How many kinds there are.
    kinds: u32,
    msi: Mutex<Vectors>,
    msix: Mutex<Vectors>,
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
            msi: Mutex::default(),
            msix: Mutex::default(),
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
        self.set_lines(request)
    }

    /// SET_IRQS of INTx, MSI or MSI-X.
    fn set_lines(&self, request: SetIrqs) -> Result<(), Errno> {
        let info = self.info(request.index)?;
        let SetIrqs {
            index,
            start,
            count,
            action,
            data,
        } = request;
        let end = start.checked_add(count);
        if end.is_none_or(|end| end > info.count) {
            return Err(Errno::INVAL);
        }
        let data = Data::of(data, count as usize)?;
        let done = match (action, data, self.vectors(index, info)) {
            (IrqAction::Trigger, Data::Eventfds(eventfds), Some(vectors)) => {
                vectors.lock().connect(&*self.device, index, start, eventfds)
            }
            (IrqAction::Trigger, Data::None, Some(vectors)) if count == 0 => {
                let mut vectors = vectors.lock();
                try_disable(&*self.device, index).inspect(|()| vectors.forget())
            }
            (action, data, _) => data.with(|data| {
                self.device.set_irqs(&kernel::SetIrqs {
                    index,
                    start,
                    count,
                    action,
                    data,
                })
            }),
        };
        done.map_err(|error| errno(&error))
    }

    /// The vectors of a kind, if the kernel fixes their number.
    fn vectors(&self, index: u32, info: IrqInfo) -> Option<&Mutex<Vectors>> {
        if info.flags & INFO_NORESIZE == 0 {
            return None;
        }
        match IrqIndex::from_wire(index)? {
            IrqIndex::Msi => Some(&self.msi),
            IrqIndex::Msix => Some(&self.msix),
            IrqIndex::Intx | IrqIndex::Err | IrqIndex::Req => None,
        }
    }

    /// Takes every eventfd away from the kernel.
    pub(super) fn disable(&self) {
        for index in 0..self.kinds.min(IrqIndex::Err as u32) {
            disable(&*self.device, index);
        }
    }
}

/// What goes with a request, with one item for each interrupt.
enum Data {
    None,
    Bool(Vec<u8>),
    Eventfds(Vec<Option<OwnedFd>>),
}

impl Data {
    fn of(data: irq::IrqData, count: usize) -> Result<Self, Errno> {
        Ok(match data {
            irq::IrqData::None => Self::None,
            irq::IrqData::Bool(flags) if flags.len() == count => Self::Bool(flags),
            irq::IrqData::Eventfds(fds) if fds.is_empty() => {
                Self::Eventfds(std::iter::repeat_with(|| None).take(count).collect())
            }
            irq::IrqData::Eventfds(fds) if fds.len() == count => {
                Self::Eventfds(fds.into_iter().map(Some).collect())
            }
            irq::IrqData::Bool(_) | irq::IrqData::Eventfds(_) => return Err(Errno::INVAL),
        })
    }

    /// As the kernel is given it.
    fn with<T>(&self, give: impl FnOnce(kernel::IrqData<'_>) -> T) -> T {
        match self {
            Self::None => give(kernel::IrqData::None),
            Self::Bool(flags) => give(kernel::IrqData::Bool(flags)),
            Self::Eventfds(fds) => {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_ref().map(AsFd::as_fd)).collect();
                give(kernel::IrqData::Eventfds(&fds))
            }
        }
    }
}

/// Disables a kind of interrupts. One that is not enabled is refused, and stays as it is.
fn disable(device: &dyn Device, index: u32) {
    let _ = try_disable(device, index);
}

fn try_disable(device: &dyn Device, index: u32) -> io::Result<()> {
    device.set_irqs(&kernel::SetIrqs {
        index,
        start: 0,
        count: 0,
        action: IrqAction::Trigger,
        data: kernel::IrqData::None,
    })
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
