//! Messages and file descriptors over a socket, each call with a deadline.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    shutdown, socket_with,
};
use zerocopy::{FromBytes, IntoBytes};

use super::error::{Error, Result, Violation};
use crate::wire::{Command, Header, consts};

/// Longest payload taken from a server; anything longer is a violation, not a reason to allocate.
const MAX_PAYLOAD: usize = 64 << 20;

/// When a call gives up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    /// A deadline `allowed` from now.
    pub fn after(allowed: Duration) -> Self {
        Self {
            at: Instant::now() + allowed,
            allowed,
        }
    }

    /// The time that was allowed in all.
    pub fn allowed(&self) -> Duration {
        self.allowed
    }

    /// The time left, `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now())
    }
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// File descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The struct that the payload starts with.
    ///
    /// # Errors
    ///
    /// [`Violation::Short`] when the payload is shorter than that.
    pub fn parse<T: FromBytes>(&self) -> std::result::Result<T, Violation> {
        T::read_from_prefix(&self.payload)
            .map(|(value, _)| value)
            .map_err(|_| Violation::Short {
                expected: size_of::<T>(),
                got: self.payload.len(),
            })
    }

    /// The command, if its number is known.
    pub fn command(&self) -> Option<Command> {
        Command::from_wire(self.header.command)
    }
}

/// Why a message could not be moved, before it is known which request it belongs to.
#[derive(Debug)]
pub(super) enum Failure {
    Late,
    Violation(Violation),
    Other(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Other(errno.into())
    }
}

impl Failure {
    /// The error of the request `command`.
    pub(super) fn of(self, command: Command, deadline: Deadline) -> Error {
        match self {
            Self::Late => Error::Timeout {
                command,
                after: deadline.allowed(),
            },
            Self::Violation(violation) => Error::Protocol { command, violation },
            Self::Other(error) => error,
        }
    }
}

/// The message being received. It outlives a deadline, so that a late rest does not shift the stream.
#[derive(Default)]
struct Incoming {
    header: Header,
    header_bytes: usize,
    payload: Vec<u8>,
    payload_bytes: usize,
    fds: Vec<OwnedFd>,
}

/// A connected socket.
pub struct Connection {
    socket: OwnedFd,
    incoming: Incoming,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// Connects to the server listening at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] when there is none, or when its queue stays full until the deadline.
    pub fn connect(path: &Path, deadline: Deadline) -> Result<Self> {
        let fail = |errno: Errno| Error::Connect {
            path: path.to_owned(),
            source: errno.into(),
        };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => return Ok(Self::from_socket(socket)),
                Err(Errno::AGAIN | Errno::INTR) if deadline.left().is_some() => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(errno) => return Err(fail(errno)),
            }
        }
    }

    /// Takes over a socket that is connected and non-blocking already.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self {
            socket,
            incoming: Incoming::default(),
        }
    }

    /// Sends bytes as they are, the file descriptors with the first of them.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the peer does not read, [`Error::Closed`] when it is gone.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<()> {
        self.send(bytes, fds, deadline)
            .map_err(|failure| failure.of(Command::Version, deadline))
    }

    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let mut sent = 0;
        let mut fds = fds;
        while sent < bytes.len() {
            match self.send_some(&bytes[sent..], fds) {
                Ok(count) => {
                    sent += count;
                    fds = &[];
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(consts::SCM_MAX_FD))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags)
    }

    /// Receives one whole message.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when it is not complete in time (the rest is then taken by the next call),
    /// [`Error::Closed`], or [`Error::Protocol`] for an impossible size.
    pub fn receive_raw(&mut self, deadline: Deadline) -> Result<Message> {
        self.receive(deadline)
            .map_err(|failure| failure.of(Command::Version, deadline))
    }

    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<Message, Failure> {
        self.receive_header(deadline)?;
        self.receive_payload(deadline)?;
        let incoming = std::mem::take(&mut self.incoming);
        Ok(Message {
            header: incoming.header,
            payload: incoming.payload,
            fds: incoming.fds,
        })
    }

    fn receive_header(&mut self, deadline: Deadline) -> Result<(), Failure> {
        while self.incoming.header_bytes < consts::HEADER_SIZE {
            self.wait(PollFlags::IN, deadline)?;
            let start = self.incoming.header_bytes;
            let target = &mut self.incoming.header.as_mut_bytes()[start..];
            let count = receive_some(&self.socket, target, &mut self.incoming.fds)?;
            self.incoming.header_bytes += count;
            if self.incoming.header_bytes == consts::HEADER_SIZE {
                self.incoming.payload = payload_buffer(&self.incoming.header)?;
            }
        }
        Ok(())
    }

    fn receive_payload(&mut self, deadline: Deadline) -> Result<(), Failure> {
        while self.incoming.payload_bytes < self.incoming.payload.len() {
            let start = self.incoming.payload_bytes;
            match receive_some(
                &self.socket,
                &mut self.incoming.payload[start..],
                &mut self.incoming.fds,
            )? {
                0 => self.wait(PollFlags::IN, deadline)?,
                count => self.incoming.payload_bytes += count,
            }
        }
        Ok(())
    }

    fn wait(&self, events: PollFlags, deadline: Deadline) -> Result<(), Failure> {
        loop {
            let left = deadline.left().ok_or(Failure::Late)?;
            let timeout = Timespec::try_from(left).map_err(|_| Failure::Late)?;
            match poll(&mut [PollFd::new(&self.socket, events)], Some(&timeout)) {
                Ok(0) => return Err(Failure::Late),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Ends both directions without closing the descriptor.
    pub fn shut_down(&self) {
        // A peer that is gone already has ended them as well.
        let _ = shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

fn payload_buffer(header: &Header) -> Result<Vec<u8>, Failure> {
    let wrong = || Failure::Violation(Violation::Size(header.size));
    let size = (header.size as usize)
        .checked_sub(consts::HEADER_SIZE)
        .ok_or_else(wrong)?;
    if size > MAX_PAYLOAD {
        return Err(wrong());
    }
    Ok(vec![0; size])
}

/// Takes what is there: 0 bytes when nothing is.
fn receive_some(socket: &OwnedFd, target: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Failure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(consts::SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    match recvmsg(socket, &mut [IoSliceMut::new(target)], &mut control, flags) {
        Ok(received) => {
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            match received.bytes {
                0 => Err(Failure::Other(Error::Closed)),
                count => Ok(count),
            }
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}
