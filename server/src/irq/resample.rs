//! Unmasking of INTx by an eventfd, as KVM's irqfd does when the guest has handled the interrupt.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr, write};

use super::eventfd::Eventfd;
use super::lines::Lines;

/// A thread that unmasks INTx each time that an eventfd is signalled. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Resampler {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Resampler {
    /// Starts to wait for `unmask`.
    pub(super) fn start(unmask: Eventfd, lines: Arc<Lines>) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("irq-resample".to_owned())
            .spawn(move || resample(&unmask, &stopped, &lines))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        // Our own eventfd, written once: this neither blocks nor fails.
        let stopping = retry_on_intr(|| write(&self.stop, &1u64.to_ne_bytes()));
        debug_assert!(stopping.is_ok());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that unmasks INTx panicked");
        }
    }
}

fn resample(unmask: &Eventfd, stop: &OwnedFd, lines: &Lines) {
    loop {
        match wait(unmask, stop) {
            Ok(Event::Unmask) => lines.unmask_intx(),
            Ok(Event::Nothing) => {}
            Ok(Event::Stop) => return,
            Err(error) => return tracing::error!(%error, "INTx can no longer be unmasked by eventfd"),
        }
    }
}

enum Event {
    Unmask,
    Stop,
    /// A signal caught by this thread, or an eventfd that the client read itself.
    Nothing,
}

fn wait(unmask: &Eventfd, stop: &OwnedFd) -> rustix::io::Result<Event> {
    let mut fds = [
        PollFd::new(unmask, PollFlags::IN),
        PollFd::new(stop, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Err(Errno::INTR) => Ok(Event::Nothing),
        Err(error) => Err(error),
        Ok(_) if !fds[1].revents().is_empty() => Ok(Event::Stop),
        Ok(_) => Ok(if unmask.take()? {
            Event::Unmask
        } else {
            Event::Nothing
        }),
    }
}
