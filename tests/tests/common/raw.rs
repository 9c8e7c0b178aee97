//! Messages that no well-behaved client sends.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use vfio_user_check::client::{Client, Connection, Deadline, Error, Message};
use vfio_user_check::wire::{Command, Header};
use zerocopy::IntoBytes;

/// How long a server may take to answer or to close.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a server did about a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It did as it was told.
    Done,
    /// It answered with an errno.
    Refused(u32),
    /// It closed the connection.
    Closed,
}

/// Sends a message as it stands and waits for what the server does. Doing nothing fails the test.
pub(crate) fn send(client: &mut Client, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Outcome {
    let bytes = [header.as_bytes(), payload].concat();
    match client
        .connection()
        .send_raw(&bytes, fds, Deadline::after(PATIENCE))
    {
        Ok(()) => reaction(client.connection()),
        Err(error) if error.is_closed() => Outcome::Closed,
        Err(error) => panic!("the server does not read: {error}"),
    }
}

/// Waits for a reply or the end of the connection.
pub(crate) fn reaction(connection: &mut Connection) -> Outcome {
    match connection.receive_raw(Deadline::after(PATIENCE)) {
        Ok(Message { header, .. }) if header.is_error() => Outcome::Refused(header.error),
        Ok(_) => Outcome::Done,
        Err(Error::Timeout { .. }) => panic!("the server neither answers nor closes"),
        Err(_) => Outcome::Closed,
    }
}

/// A command with a payload, well framed.
pub(crate) fn command(
    client: &mut Client,
    command: Command,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Outcome {
    send(client, Header::command(77, command, payload.len()), payload, fds)
}

/// Bytes that look random and are the same in every run.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}
