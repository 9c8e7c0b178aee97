//! One message and what the server does about it.

use std::os::fd::BorrowedFd;

use zerocopy::IntoBytes;

use super::check::{Checked, Stop, fail};
use crate::client::{Client, Connection, Deadline, Error, Message};
use crate::wire::{Command, Header, consts};

/// What the server did.
#[derive(Debug)]
pub(super) enum Answer {
    /// It did as it was told.
    Done(Message),
    /// It answered with an errno, which may be 0.
    Refused(u32),
    /// It ended the connection.
    Closed,
}

impl Answer {
    /// The reply to a request that must be carried out.
    pub(super) fn done(self, what: &str) -> Checked<Message> {
        match self {
            Self::Done(reply) => Ok(reply),
            Self::Refused(errno) => fail(format!("{what}: refused with {}", errno_text(errno))),
            Self::Closed => fail(format!("{what}: the server closed the connection")),
        }
    }

    /// The errno of a request that must be answered with an error: a message that is framed well has a reply.
    pub(super) fn refused(self, what: &str) -> Checked<u32> {
        match self {
            Self::Refused(errno) => Ok(errno),
            Self::Done(_) => fail(format!("{what}: answered as if it had been carried out")),
            Self::Closed => fail(format!(
                "{what}: the server closed the connection instead of answering"
            )),
        }
    }

    /// A request that must be answered with this errno.
    pub(super) fn refused_with(self, expected: u32, what: &str) -> Checked {
        let errno = self.refused(what)?;
        if errno == expected {
            return Ok(());
        }
        fail(format!(
            "{what}: refused with {}, not with {}",
            errno_text(errno),
            errno_text(expected)
        ))
    }

    /// A request that must not be carried out, and after which the connection may end.
    pub(super) fn refused_or_closed(self, what: &str) -> Checked {
        match self {
            Self::Closed => Ok(()),
            other => other.refused(what).map(drop),
        }
    }
}

/// An errno in words.
pub(super) fn errno_text(errno: u32) -> String {
    match errno {
        0 => "an error without errno".to_owned(),
        _ => std::io::Error::from_raw_os_error(errno.cast_signed()).to_string(),
    }
}

/// Id of messages that are sent as they stand; the client's own count up from 1.
const ID: u16 = 0xc0de;

/// Messages as a check writes them.
pub(super) trait Ask {
    /// Sends a command and waits for its answer.
    fn ask(&mut self, command: Command, payload: &[u8]) -> Checked<Answer>;

    /// The same with file descriptors.
    fn ask_with(&mut self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Checked<Answer>;

    /// Sends a message with a header of its own.
    fn ask_raw(&mut self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Checked<Answer>;

    /// Sends bytes as they are; a connection that is gone is no failure of the sender.
    fn send_bytes(&mut self, bytes: &[u8]) -> Checked;

    /// Waits for the next reply.
    fn answer(&mut self) -> Checked<Answer>;
}

impl Ask for Client {
    fn ask(&mut self, command: Command, payload: &[u8]) -> Checked<Answer> {
        self.ask_with(command, payload, &[])
    }

    fn ask_with(&mut self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Checked<Answer> {
        self.ask_raw(Header::command(ID, command, payload.len()), payload, fds)
    }

    fn ask_raw(&mut self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Checked<Answer> {
        let deadline = Deadline::after(self.timeout());
        if !send(
            self.connection(),
            &[header.as_bytes(), payload].concat(),
            fds,
            deadline,
        )? {
            return Ok(Answer::Closed);
        }
        receive_reply(self.connection(), Some(header), deadline)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Checked {
        let deadline = Deadline::after(self.timeout());
        send(self.connection(), bytes, &[], deadline).map(drop)
    }

    fn answer(&mut self) -> Checked<Answer> {
        let deadline = Deadline::after(self.timeout());
        receive_reply(self.connection(), None, deadline)
    }
}

/// Sends bytes, and says whether the connection was still there.
pub(super) fn send(
    connection: &mut Connection,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> Checked<bool> {
    match connection.send_raw(bytes, fds, deadline) {
        Ok(()) => Ok(true),
        Err(error) if error.is_closed() => Ok(false),
        Err(Error::Timeout { after, .. }) => fail(format!("the server did not read within {after:?}")),
        Err(error) => Err(error.into()),
    }
}

/// The next reply; requests of the server that come before it are refused. With `request` it must be the reply to that.
pub(super) fn receive_reply(
    connection: &mut Connection,
    request: Option<Header>,
    deadline: Deadline,
) -> Checked<Answer> {
    loop {
        let message = match connection.receive_raw(deadline) {
            Ok(message) => message,
            Err(error) if error.is_closed() => return Ok(Answer::Closed),
            Err(Error::Timeout { after, .. }) => {
                return fail(format!("the server neither answered nor closed within {after:?}"));
            }
            Err(Error::Protocol { violation, .. }) => {
                return fail(format!("protocol violation: {violation}"));
            }
            Err(error) => return Err(error.into()),
        };
        if !message.header.is_reply() {
            let refusal = Header::error_to(&message.header, consts::ENOTSUP);
            send(connection, refusal.as_bytes(), &[], deadline)?;
            continue;
        }
        if let Some(request) = request {
            belongs(&message.header, &request)?;
        }
        return Ok(if message.header.is_error() {
            Answer::Refused(message.header.error)
        } else {
            Answer::Done(message)
        });
    }
}

fn belongs(reply: &Header, request: &Header) -> Checked {
    if reply.id != request.id {
        return fail(format!(
            "the reply has id {:#x}, the request {:#x}",
            reply.id, request.id
        ));
    }
    if reply.command != request.command {
        return fail(format!(
            "the reply has command {}, the request {}",
            reply.command, request.command
        ));
    }
    Ok(())
}

/// The struct that a reply starts with.
pub(super) fn parsed<T: zerocopy::FromBytes>(reply: &Message) -> Checked<T> {
    reply
        .parse()
        .map_err(|violation| Stop::Fail(format!("the reply is {violation}")))
}
