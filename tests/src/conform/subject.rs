//! The server under test.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::process::Process;
use crate::client::{Client, Connection, Deadline, Error};
use crate::wire::Capabilities;

/// Time between two tries to connect.
const RETRY: Duration = Duration::from_millis(2);

/// Why there is no server to test.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// It cannot be started.
    #[error("the server cannot be started")]
    Start(#[source] std::io::Error),
    /// It takes no client.
    #[error("{path}: the server takes no client within {timeout:?}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// How long it was tried.
        timeout: Duration,
        /// How the last try ended.
        source: Error,
    },
    /// It ended in a way that no server should.
    #[error("the server has ended with {0}")]
    Ended(ExitStatus),
}

/// A server: the sockets of the devices of one VM, and how long it may take for a request.
pub struct Subject {
    sockets: Vec<PathBuf>,
    timeout: Duration,
    /// Its process, if it is started here.
    process: Option<Mutex<Process>>,
}

impl Subject {
    /// A server that listens at `sockets` and is somebody else's to start.
    pub fn new(sockets: Vec<PathBuf>, timeout: Duration) -> Self {
        Self {
            sockets,
            timeout,
            process: None,
        }
    }

    /// A server that `command`, a line for the shell, starts, and that is started again whenever it has ended.
    ///
    /// # Errors
    ///
    /// There is no place for its log.
    pub fn started_by(
        command: String,
        sockets: Vec<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, SubjectError> {
        let process = Process::new(command, sockets.clone())?;
        Ok(Self {
            process: Some(Mutex::new(process)),
            ..Self::new(sockets, timeout)
        })
    }

    /// The sockets.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether a server that is gone can be replaced.
    pub fn can_start_again(&self) -> bool {
        self.process.is_some()
    }

    /// Makes sure that there is a server that serves a client at every socket.
    ///
    /// # Errors
    ///
    /// What is wrong; a server that is started here is a new one at the next call.
    pub fn settle(&self) -> Result<(), SubjectError> {
        let served = (0..self.sockets.len()).try_for_each(|index| self.serves(index));
        let Some(process) = &self.process else {
            return served;
        };
        let mut process = process.lock();
        match served {
            Ok(()) => process.learn(),
            Err(error) => {
                // How it ended says more than that it takes nobody.
                process.look_after()?;
                process.give_up();
                return Err(error);
            }
        }
        Ok(())
    }

    fn serves(&self, index: usize) -> Result<(), SubjectError> {
        match self.connect(index)?.device_info() {
            // What it answers is for the checks; that it answers is enough here.
            Ok(_) | Err(Error::Server { .. }) => Ok(()),
            Err(source) => Err(self.unreachable(index, source)),
        }
    }

    /// A connection to a socket, on which nothing has been said.
    ///
    /// # Errors
    ///
    /// There is no server.
    pub fn dial(&self, index: usize) -> Result<Connection, SubjectError> {
        if let Some(process) = &self.process {
            process.lock().make_ready(self.timeout)?;
        }
        match Connection::connect(&self.sockets[index], Deadline::after(self.timeout)) {
            Ok(connection) => Ok(connection),
            Err(source) => {
                if let Some(process) = &self.process {
                    process.lock().explain()?;
                }
                Err(self.unreachable(index, source))
            }
        }
    }

    /// A client of the device at a socket, as soon as the server takes one: it may still be clearing up after the last.
    ///
    /// # Errors
    ///
    /// There is no server, or it takes no client in time.
    pub fn connect(&self, index: usize) -> Result<Client, SubjectError> {
        let give_up = Instant::now() + self.timeout;
        loop {
            let error = match self.dial(index) {
                Ok(connection) => match self.negotiate(connection) {
                    Ok(client) => return Ok(client),
                    Err(error @ Error::Timeout { .. }) => return Err(self.unreachable(index, error)),
                    Err(error) => self.unreachable(index, error),
                },
                Err(error @ SubjectError::Unreachable { .. }) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= give_up {
                return Err(error);
            }
            std::thread::sleep(RETRY);
        }
    }

    fn negotiate(&self, connection: Connection) -> Result<Client, Error> {
        Client::negotiate_within(connection, Capabilities::proposal(), self.timeout)
    }

    fn unreachable(&self, index: usize, source: Error) -> SubjectError {
        SubjectError::Unreachable {
            path: self.sockets[index].clone(),
            timeout: self.timeout,
            source,
        }
    }
}
