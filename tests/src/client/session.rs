//! A negotiated connection: requests are numbered, replies are matched, the server's own requests are served.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::connection::{Connection, Deadline, Failure, Message};
use super::error::{Error, Result, Violation};
use crate::wire::{Capabilities, Command, Header, Version, VersionHeader, consts};

/// Serves requests that the server sends while the client waits (`DMA_READ`, `DMA_WRITE`).
pub trait ServerRequests: Send {
    /// The payload of the reply to `request`, or an errno.
    ///
    /// # Errors
    ///
    /// The errno to answer with.
    fn serve(&mut self, request: &Message) -> Result<Vec<u8>, u32>;
}

/// A connection whose handshake is done.
pub struct Client {
    connection: Connection,
    capabilities: Capabilities,
    version: VersionHeader,
    timeout: Duration,
    next_id: u16,
    /// Requests whose reply did not come in time: it may come yet and is then dropped.
    abandoned: HashSet<u16>,
    server_requests: Option<Box<dyn ServerRequests>>,
    buffer: Vec<u8>,
}

impl Client {
    /// How long a request may take unless [`Self::set_timeout`] says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Connects to the server listening at `path` and shakes hands.
    ///
    /// # Errors
    ///
    /// No server, an error in its answer (`EBUSY`: another client is connected), or a version it should not have chosen.
    pub fn connect(path: &Path) -> Result<Self> {
        let connection = Connection::connect(path, Deadline::after(Self::DEFAULT_TIMEOUT))?;
        Self::negotiate(connection, Capabilities::proposal())
    }

    /// Shakes hands on `connection`, proposing `capabilities`.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn negotiate(connection: Connection, capabilities: Capabilities) -> Result<Self> {
        Self::negotiate_within(connection, capabilities, Self::DEFAULT_TIMEOUT)
    }

    /// The same, and each request, this one included, may take as long as `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn negotiate_within(
        connection: Connection,
        capabilities: Capabilities,
        timeout: Duration,
    ) -> Result<Self> {
        let mut client = Self {
            connection,
            capabilities: Capabilities::default(),
            version: VersionHeader::default(),
            timeout,
            next_id: 1,
            abandoned: HashSet::new(),
            server_requests: None,
            buffer: Vec::new(),
        };
        let mut document = serde_json::to_vec(&Version { capabilities }).map_err(std::io::Error::other)?;
        document.push(0);
        let proposal = VersionHeader {
            major: consts::VERSION_MAJOR,
            minor: consts::VERSION_MINOR,
        };
        let reply = client.call(Command::Version, &[proposal.as_bytes(), &document], &[])?;
        client.accept(&reply).map_err(|violation| Error::Protocol {
            command: Command::Version,
            violation,
        })?;
        Ok(client)
    }

    fn accept(&mut self, reply: &Message) -> Result<(), Violation> {
        let version: VersionHeader = reply.parse()?;
        if version.major != consts::VERSION_MAJOR {
            return Err(Violation::Field {
                field: "the major version",
                value: version.major.into(),
            });
        }
        if version.minor > consts::VERSION_MINOR {
            return Err(Violation::Field {
                field: "the minor version",
                value: version.minor.into(),
            });
        }
        let document = &reply.payload[size_of::<VersionHeader>()..];
        let end = document
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(document.len());
        if end > 0 {
            let parsed: Version = serde_json::from_slice(&document[..end])
                .map_err(|error| Violation::Capabilities(error.to_string()))?;
            self.capabilities = parsed.capabilities;
        }
        self.version = version;
        Ok(())
    }

    /// What the server said it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The version agreed on.
    pub fn version(&self) -> (u16, u16) {
        (self.version.major, self.version.minor)
    }

    /// How long each request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets how long each request may take from here on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sets who serves the server's own requests; without one they are answered with `ENOTSUP`.
    pub fn set_server_requests(&mut self, handler: Box<dyn ServerRequests>) {
        self.server_requests = Some(handler);
    }

    /// The connection below, for messages that no well-behaved client sends.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] with the errno of an error reply, [`Error::Timeout`], [`Error::Protocol`] or [`Error::Closed`].
    pub fn call(&mut self, command: Command, payload: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message> {
        let deadline = Deadline::after(self.timeout);
        let id = self.send_command(command, payload, fds, deadline)?;
        self.reply(command, id, deadline)
    }

    /// Sends a command without waiting; [`Self::collect`] takes its reply.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the server does not read, [`Error::Closed`].
    pub fn post(&mut self, command: Command, payload: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<u16> {
        self.send_command(command, payload, fds, Deadline::after(self.timeout))
    }

    /// Waits for the reply to the command that [`Self::post`] numbered `id`; replies come in the order of the commands.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn collect(&mut self, command: Command, id: u16) -> Result<Message> {
        self.reply(command, id, Deadline::after(self.timeout))
    }

    fn send_command(
        &mut self,
        command: Command,
        payload: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<u16> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let length = payload.iter().map(|part| part.len()).sum();
        self.buffer.clear();
        self.buffer
            .extend_from_slice(Header::command(id, command, length).as_bytes());
        for part in payload {
            self.buffer.extend_from_slice(part);
        }
        match self.connection.send(&self.buffer, fds, deadline) {
            Ok(()) => Ok(id),
            Err(failure) => Err(failure.of(command, deadline)),
        }
    }

    fn reply(&mut self, command: Command, id: u16, deadline: Deadline) -> Result<Message> {
        loop {
            let message = match self.connection.receive(deadline) {
                Ok(message) => message,
                Err(failure) => {
                    if matches!(failure, Failure::Late) {
                        self.abandoned.insert(id);
                    }
                    return Err(failure.of(command, deadline));
                }
            };
            if !message.header.is_reply() {
                self.serve(&message, deadline)
                    .map_err(|failure| failure.of(command, deadline))?;
                continue;
            }
            if message.header.id != id && self.abandoned.remove(&message.header.id) {
                continue;
            }
            return checked(message, command, id);
        }
    }

    fn serve(&mut self, request: &Message, deadline: Deadline) -> Result<(), Failure> {
        let answer = match &mut self.server_requests {
            Some(handler) => handler.serve(request),
            None => Err(consts::ENOTSUP),
        };
        if request.header.flags & consts::FLAG_NO_REPLY != 0 {
            return Ok(());
        }
        let bytes = match answer {
            Ok(payload) => [
                Header::reply_to(&request.header, payload.len()).as_bytes(),
                &payload,
            ]
            .concat(),
            Err(errno) => Header::error_to(&request.header, errno).as_bytes().to_vec(),
        };
        self.connection.send(&bytes, &[], deadline)
    }

    /// Sends `request` and reads a `T` off the front of the reply.
    pub(super) fn exchange<T: FromBytes>(
        &mut self,
        command: Command,
        payload: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(T, Message)> {
        let reply = self.call(command, payload, fds)?;
        let value = reply
            .parse()
            .map_err(|violation| Error::Protocol { command, violation })?;
        Ok((value, reply))
    }
}

fn checked(message: Message, command: Command, id: u16) -> Result<Message> {
    let violation = |violation| Err(Error::Protocol { command, violation });
    if message.header.id != id {
        return violation(Violation::Id {
            expected: id,
            got: message.header.id,
        });
    }
    if message.header.is_error() {
        return Err(Error::Server {
            command,
            errno: message.header.error,
        });
    }
    if message.header.command != command as u16 {
        return violation(Violation::Command {
            got: message.header.command,
        });
    }
    Ok(message)
}
