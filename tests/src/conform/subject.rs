//! The server under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, Connection, Deadline, Error};
use crate::spawn::Server;
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
    #[error("the server was killed by signal {0}")]
    Killed(i32),
}

/// A server that is started here, and again when it has ended.
struct Process {
    command: String,
    folder: tempfile::TempDir,
    server: Option<Server>,
}

/// A server: the sockets of the devices of one VM, and how long it may take for a request.
pub struct Subject {
    sockets: Vec<PathBuf>,
    timeout: Duration,
    process: Option<Process>,
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
        let folder = tempfile::tempdir().map_err(SubjectError::Start)?;
        Ok(Self {
            process: Some(Process {
                command,
                folder,
                server: None,
            }),
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

    /// Makes sure that the server runs and serves a client at every socket.
    ///
    /// # Errors
    ///
    /// What is wrong; a server that is started here is a new one at the next call.
    pub fn settle(&mut self) -> Result<(), SubjectError> {
        self.start_again()?;
        let served = (0..self.sockets.len()).try_for_each(|index| {
            let mut client = self.connect(index)?;
            match client.device_info() {
                // What it answers is for the checks; that it answers is enough here.
                Ok(_) | Err(Error::Server { .. }) => Ok(()),
                Err(source) => Err(self.unreachable(index, source)),
            }
        });
        if served.is_err() {
            self.give_up();
        }
        served
    }

    /// Whether another try makes sense after [`Self::settle`] has failed.
    pub fn can_start_again(&self) -> bool {
        self.process.is_some()
    }

    fn start_again(&mut self) -> Result<(), SubjectError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if process.server.as_mut().is_some_and(Server::is_running) {
            return Ok(());
        }
        let killed = process.server.take().and_then(|mut server| server.killed_by());
        if let Some(signal) = killed {
            return Err(SubjectError::Killed(signal));
        }
        self.sockets.iter().for_each(|socket| remove_stale(socket));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", process.command));
        let log = process.folder.path().join("log");
        let server = Server::start(command, &log, &self.sockets).map_err(SubjectError::Start)?;
        process.server = Some(server);
        Ok(())
    }

    /// Ends a server that does not serve; the next is a new one.
    fn give_up(&mut self) {
        if let Some(process) = &mut self.process
            && process.server.as_mut().is_some_and(Server::is_running)
        {
            process.server = None;
        }
    }

    /// A client of the device at a socket, as soon as the server takes one: it may still be clearing up after the last.
    ///
    /// # Errors
    ///
    /// [`SubjectError::Unreachable`].
    pub fn connect(&self, index: usize) -> Result<Client, SubjectError> {
        let give_up = Instant::now() + self.timeout;
        loop {
            match self.try_connect(&self.sockets[index]) {
                Ok(client) => return Ok(client),
                Err(error) if matches!(error, Error::Timeout { .. }) || Instant::now() >= give_up => {
                    return Err(self.unreachable(index, error));
                }
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    fn try_connect(&self, path: &Path) -> Result<Client, Error> {
        let connection = Connection::connect(path, Deadline::after(self.timeout))?;
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

/// Removes the socket of a server that has ended: many refuse to listen where there is one already.
fn remove_stale(socket: &Path) {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(socket).is_ok_and(|entry| entry.file_type().is_socket()) {
        // If it stays, the server says so when it starts.
        let _ = std::fs::remove_file(socket);
    }
}
