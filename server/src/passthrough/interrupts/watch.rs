//! [`Watch`]: a thread that waits for what the kernel says of a device as a whole.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{Unheard, disable};
use crate::irq::{self, IrqAction, IrqIndex};
use crate::passthrough::kernel::{Device, IrqData, SetIrqs};

/// The events, and the thread that waits for them until this is dropped.
pub(super) struct Watch {
    device: Arc<dyn Device>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has.
struct Events {
    name: String,
    error: OwnedFd,
    request: OwnedFd,
    stop: OwnedFd,
    client: Arc<irq::Interrupts>,
}

impl Watch {
    /// Has the kernel tell this process of errors and of the host's requests, as far as the device has them.
    pub(super) fn start(
        device: &Arc<dyn Device>,
        name: &str,
        client: Arc<irq::Interrupts>,
        unheard: impl Fn(Unheard) + Send + 'static,
    ) -> io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (error, request, stop) = (event()?, event()?, event()?);
        for (index, event) in [(IrqIndex::Err, &error), (IrqIndex::Req, &request)] {
            connect(&**device, index as u32, event)?;
        }
        let events = Events {
            name: name.to_owned(),
            error,
            request,
            stop: stop.try_clone()?,
            client,
        };
        let thread = std::thread::Builder::new()
            .name(format!("{name} watch"))
            .spawn(move || events.wait(unheard))?;
        Ok(Self {
            device: Arc::clone(device),
            stop,
            thread: Some(thread),
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        disable(&*self.device, IrqIndex::Err as u32);
        disable(&*self.device, IrqIndex::Req as u32);
        signal(&self.stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("internal error: the thread that watches a device panicked");
        }
    }
}

impl Events {
    fn wait(self, unheard: impl Fn(Unheard)) {
        loop {
            let mut fds = [&self.stop, &self.error, &self.request].map(|fd| PollFd::new(fd, PollFlags::IN));
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let [stop, error, request] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return;
            }
            if error {
                take(&self.error);
                tracing::error!(
                    device = self.name,
                    "the device reports an error that it cannot correct"
                );
                self.pass_on(IrqIndex::Err, Unheard::Error, &unheard);
            }
            if request {
                take(&self.request);
                tracing::warn!(
                    device = self.name,
                    "the host wants the device back: unplug it from the guest"
                );
                self.pass_on(IrqIndex::Req, Unheard::Request, &unheard);
            }
        }
    }

    fn pass_on(&self, index: IrqIndex, what: Unheard, unheard: &impl Fn(Unheard)) {
        if !self.client.announce(index) {
            unheard(what);
        }
    }
}

/// Gives the kernel an eventfd for the one interrupt of a kind, if the device has it.
fn connect(device: &dyn Device, index: u32, event: &OwnedFd) -> io::Result<()> {
    if !device.irq(index).is_ok_and(|info| info.count == 1) {
        return Ok(());
    }
    device.set_irqs(&SetIrqs {
        index,
        start: 0,
        count: 1,
        action: IrqAction::Trigger,
        data: IrqData::Eventfds(&[Some(event.as_fd())]),
    })
}

fn signal(event: &OwnedFd) {
    // A full counter has been signalled already.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Empties the counter. That it is empty already is no error.
fn take(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0; 8]);
}
