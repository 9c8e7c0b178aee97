//! A server that is started here.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::subject::SubjectError;
use crate::spawn::Server;

/// How long a server that ends with its client may take for that, on a busy machine.
const PARTING: Duration = Duration::from_secs(2);

/// Time between two looks at a process.
const LOOK: Duration = Duration::from_millis(2);

/// What a server does when its client goes; the specification leaves it to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Not seen yet.
    Unknown,
    /// It waits for the next client.
    Stays,
    /// It ends.
    Leaves,
}

/// A server's process: it is started, and again when it has ended.
pub(super) struct Process {
    command: String,
    sockets: Vec<PathBuf>,
    folder: tempfile::TempDir,
    server: Option<Server>,
    habit: Habit,
    /// Whether this process has had a client.
    used: bool,
}

impl Process {
    pub(super) fn new(command: String, sockets: Vec<PathBuf>) -> Result<Self, SubjectError> {
        Ok(Self {
            command,
            sockets,
            folder: tempfile::tempdir().map_err(SubjectError::Start)?,
            server: None,
            habit: Habit::Unknown,
            used: false,
        })
    }

    /// Has a server that is ready for a client. One that leaves with its client is given `timeout` to do so.
    ///
    /// # Errors
    ///
    /// The server has ended as no server should, or none can be started. The next call starts a new one.
    pub(super) fn make_ready(&mut self, timeout: Duration) -> Result<(), SubjectError> {
        if self.habit == Habit::Leaves && self.used {
            self.wait_for_the_end(timeout);
        }
        self.look_after()?;
        if self.server.is_none() {
            self.start()?;
        }
        self.used = true;
        Ok(())
    }

    /// Clears up after a server that has ended.
    ///
    /// # Errors
    ///
    /// It was killed, or it is one that stays, however it ended.
    pub(super) fn look_after(&mut self) -> Result<(), SubjectError> {
        let Some(status) = self.server.as_mut().and_then(Server::ended) else {
            return Ok(());
        };
        self.server = None;
        match self.habit {
            Habit::Leaves if !is_killed(status) => Ok(()),
            _ => Err(SubjectError::Ended(status)),
        }
    }

    /// Looks whether a server that does not listen is one that is ending.
    ///
    /// # Errors
    ///
    /// As [`Self::look_after`].
    pub(super) fn explain(&mut self) -> Result<(), SubjectError> {
        self.wait_for_the_end(PARTING);
        self.look_after()
    }

    /// Sees what the server does now that its first client has gone. One of several devices stays while it has clients.
    pub(super) fn learn(&mut self) {
        if self.habit != Habit::Unknown {
            return;
        }
        self.habit = Habit::Stays;
        if self.sockets.len() == 1 && self.wait_for_the_end(PARTING) {
            self.habit = Habit::Leaves;
        }
    }

    /// Ends a server that serves nobody; the next is a new one.
    pub(super) fn give_up(&mut self) {
        self.server = None;
    }

    fn start(&mut self) -> Result<(), SubjectError> {
        self.sockets.iter().for_each(|socket| remove_stale(socket));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", self.command));
        let log = self.folder.path().join("log");
        let server = Server::start(command, &log, &self.sockets).map_err(SubjectError::Start)?;
        self.server = Some(server);
        self.used = false;
        Ok(())
    }

    /// Waits for the process to end, and says whether it did.
    fn wait_for_the_end(&mut self, timeout: Duration) -> bool {
        let give_up = Instant::now() + timeout;
        while self.server.as_mut().is_some_and(Server::is_running) {
            if Instant::now() >= give_up {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

fn is_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal().is_some()
}

/// Removes the socket of a server that has ended: many refuse to listen where there is one already.
fn remove_stale(socket: &Path) {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(socket).is_ok_and(|entry| entry.file_type().is_socket()) {
        // If it stays, the server says so when it starts.
        let _ = std::fs::remove_file(socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stays_and_ends_is_told_of_even_if_it_ends_well() {
        let mut process = Process::new("sleep 0.1".to_owned(), Vec::new()).expect("a folder");
        let patience = Duration::from_secs(10);
        process.make_ready(patience).expect("it starts");
        // It has no socket of its own to be known by.
        process.learn();
        assert!(process.wait_for_the_end(patience), "it ends of itself");
        assert!(matches!(process.look_after(), Err(SubjectError::Ended(status)) if status.success()));
        process.look_after().expect("once");
    }
}
