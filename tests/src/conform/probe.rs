//! What a check is given to try the server with.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ask::{Answer, receive_reply, send};
use super::check::{Checked, fail};
use super::subject::Subject;
use crate::client::{Client, Connection, Deadline, Error};
use crate::wire::{Command, Header, MigState, consts};
use zerocopy::IntoBytes;

/// Id of the first message of a connection.
const VERSION_ID: u16 = 0x5eed;

/// A way to the server.
pub(super) struct Probe<'a> {
    subject: &'a Subject,
}

impl<'a> Probe<'a> {
    pub(super) fn new(subject: &'a Subject) -> Self {
        Self { subject }
    }

    /// The sockets.
    pub(super) fn sockets(&self) -> &[PathBuf] {
        self.subject.sockets()
    }

    /// How long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.subject.timeout()
    }

    /// A connection to the first device that has not said anything yet.
    pub(super) fn connection(&self) -> Checked<Connection> {
        Ok(self.subject.dial(0)?)
    }

    /// A client of the device at a socket, in whatever state the last one has left it.
    pub(super) fn client_of(&self, index: usize) -> Checked<Client> {
        Ok(self.subject.connect(index)?)
    }

    /// A client of a device that runs, and was reset if it can be.
    pub(super) fn ready_of(&self, index: usize) -> Checked<Client> {
        let mut client = self.client_of(index)?;
        if client.device_info()?.flags & consts::DEVICE_FLAGS_RESET != 0 {
            client.device_reset()?;
            return Ok(client);
        }
        match client.migration_flags() {
            Ok(_) if client.mig_state()? != MigState::Running => client.set_mig_state(MigState::Running)?,
            Ok(_) | Err(Error::Server { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(client)
    }

    /// As [`Self::ready_of`], of the first device.
    pub(super) fn ready(&self) -> Checked<Client> {
        self.ready_of(0)
    }

    /// Says `payload` as VERSION on a new connection. A server that is still clearing up after the last client is asked again.
    pub(super) fn propose(&self, payload: &[u8]) -> Checked<(Connection, Answer)> {
        let give_up = Instant::now() + self.timeout();
        loop {
            let mut connection = self.connection()?;
            let header = Header::command(VERSION_ID, Command::Version, payload.len());
            let answer = exchange(&mut connection, header, payload, self.timeout())?;
            match answer {
                Answer::Refused(consts::EBUSY) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                answer => return Ok((connection, answer)),
            }
        }
    }

    /// Checks that the server goes on after something bad: the next client is served.
    pub(super) fn next_is_served(&self) -> Checked {
        let mut client = self.client_of(0)?;
        match client.device_info() {
            Ok(_) => Ok(()),
            Err(error) => fail(format!("the next client is not served: {error}")),
        }
    }
}

/// Sends a message and waits for its answer, on a connection without a client around it.
pub(super) fn exchange(
    connection: &mut Connection,
    header: Header,
    payload: &[u8],
    timeout: Duration,
) -> Checked<Answer> {
    let deadline = Deadline::after(timeout);
    if !send(connection, &[header.as_bytes(), payload].concat(), &[], deadline)? {
        return Ok(Answer::Closed);
    }
    receive_reply(connection, Some(header), deadline)
}
