//! A client's eventfd.
//!
//! The client shares the file description: `O_NONBLOCK` is its choice, and may change between any two calls. Setting it
//! would break a client that waits by reading, and refusing an eventfd without it would refuse good clients without
//! stopping a bad one. So nothing here relies on it:
//!
//! - A read is `preadv2` with `RWF_NOWAIT`, which never blocks on an eventfd. (A write has no such flag.)
//! - A write comes after a poll that says it would not block. A counter that is full counts as signalled.
//! - A client can fill the counter between the two. The write may then block until the [`watchdog`] empties the counter,
//!   so such a client delays its own device, and no more.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr, write};

use super::watchdog;

/// What `/proc` calls an eventfd. The path of a file starts with a slash, so none can pass for one.
const EVENTFD_LINK: &str = "anon_inode:[eventfd]";

/// Where a non-seekable file is read.
const NO_OFFSET: u64 = u64::MAX;

/// An eventfd that a client gave us to signal or to wait for.
#[derive(Debug)]
pub(super) struct Eventfd(Arc<Shared>);

/// What the watchdog sees of an eventfd.
#[derive(Debug)]
pub(super) struct Shared {
    fd: OwnedFd,
    /// Writes started and ended: odd while one is under way.
    writes: AtomicU64,
}

/// Why a file descriptor was refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is something else, or cannot be told to be an eventfd.
    NotEventfd,
    /// The watchdog could not be started.
    Host(std::io::Error),
}

impl Eventfd {
    /// Takes `fd` over if it is an eventfd.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, Refused> {
        if !is_eventfd(fd.as_fd()) {
            return Err(Refused::NotEventfd);
        }
        let shared = Arc::new(Shared {
            fd,
            writes: AtomicU64::new(0),
        });
        watchdog::watch(&shared).map_err(Refused::Host)?;
        Ok(Self(shared))
    }

    /// Adds one to the counter, unless it is full.
    pub(super) fn signal(&self) {
        if self.0.has_room() {
            self.0.write();
        }
    }

    /// Empties the counter; `false` when it was empty. Never blocks.
    ///
    /// # Errors
    ///
    /// What the kernel says; it will say so again.
    pub(super) fn take(&self) -> rustix::io::Result<bool> {
        self.0.drain()
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Shared {
    /// Whether a write would not block now.
    pub(super) fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let now = Timespec::default();
        match retry_on_intr(|| poll(&mut fds, Some(&now))) {
            Ok(_) => fds[0].revents().contains(PollFlags::OUT),
            Err(error) => {
                tracing::warn!(%error, "cannot poll a client's eventfd");
                false
            }
        }
    }

    fn write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let written = retry_on_intr(|| write(&self.fd, &1u64.to_ne_bytes()));
        self.writes.fetch_add(1, Ordering::Relaxed);
        match written {
            // Full on a description that does not block: signalled already.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::warn!(%error, "cannot signal a client's eventfd"),
        }
    }

    /// The write that is under way, if one is.
    pub(super) fn write_under_way(&self) -> Option<u64> {
        let writes = self.writes.load(Ordering::Relaxed);
        (writes % 2 == 1).then_some(writes)
    }

    /// Makes room in the counter; `false` when it was empty. Never blocks.
    pub(super) fn drain(&self) -> rustix::io::Result<bool> {
        let mut count = [0; 8];
        let read = retry_on_intr(|| {
            let mut buffers = [IoSliceMut::new(&mut count)];
            preadv2(&self.fd, &mut buffers, NO_OFFSET, ReadWriteFlags::NOWAIT)
        });
        match read {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str() == EVENTFD_LINK)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn blocking() -> (OwnedFd, Eventfd) {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let ours = Eventfd::new(fd.try_clone().unwrap()).unwrap();
        (fd, ours)
    }

    fn fill(fd: &OwnedFd) {
        write(fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    }

    #[test]
    fn only_an_eventfd_is_taken() {
        let (pipe, _writer) = std::io::pipe().unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let directory = std::fs::File::open("/").unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        for fd in [pipe.into(), socket.into(), file.into(), directory.into(), epoll] {
            assert!(matches!(Eventfd::new(fd), Err(Refused::NotEventfd)));
        }
    }

    #[test]
    fn a_full_counter_counts_as_signalled_and_does_not_block() {
        let (fd, ours) = blocking();
        fill(&fd);
        let before = Instant::now();
        ours.signal();
        assert!(before.elapsed() < Duration::from_millis(100));
    }

    #[test]
    fn taking_from_an_empty_blocking_eventfd_does_not_block() {
        let (_fd, ours) = blocking();
        assert!(!ours.take().unwrap());
        ours.signal();
        assert!(ours.take().unwrap());
        assert!(!ours.take().unwrap());
    }

    #[test]
    fn a_client_that_fills_the_counter_under_a_write_does_not_hold_the_device() {
        let (fd, ours) = blocking();
        fill(&fd);
        // As if the counter had been filled after the poll.
        let shared = Arc::clone(&ours.0);
        let (done, ended) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            shared.write();
            done.send(()).unwrap();
        });
        ended
            .recv_timeout(Duration::from_secs(10))
            .expect("the write went on");
        assert!(ours.take().unwrap(), "the signal is there");
    }

    #[test]
    fn a_signal_whose_thread_was_held_up_is_not_taken_back() {
        let (_fd, ours) = blocking();
        ours.signal();
        // As if the thread had been preempted on its way to or from the kernel.
        ours.0.writes.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        assert!(ours.take().unwrap());
    }
}
