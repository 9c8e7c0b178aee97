//! Starts a device server, waits until it listens, and stops it again.
//!
//! The server keeps to the specification's conventions for backend programs: `--socket-path`, standard error for its log,
//! SIGTERM to end. What it wrote is kept, so that a failed test can show it.

mod command;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use command::ServerCommand;

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that runs. It is killed when this is dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its standard error in the file `log`, and waits until it listens at each of `sockets`.
    ///
    /// # Errors
    ///
    /// It cannot be started, or it ends or does not listen in time; the error has its log.
    pub fn start(mut command: Command, log: &Path, sockets: &[PathBuf]) -> io::Result<Self> {
        let file = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let mut server = Self {
            child,
            log: log.to_owned(),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while !sockets.iter().all(|socket| is_listening(socket)) {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "the server ended with {status}:\n{}",
                    server.log()
                )));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "the server does not listen:\n{}",
                    server.log()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// What the server wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The server's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the server still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How the server ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks the server to end, and waits for it.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "the server does not end on SIGTERM:\n{}",
                    self.log()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Has the server stand still, connected, until [`go_on`](Self::go_on).
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn pause(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn go_on(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }

    /// The signal that killed the server, if one did.
    pub fn killed_by(&mut self) -> Option<i32> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .and_then(|status| status.signal())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server ({})\n{}", self.log.display(), self.log());
        }
    }
}

/// Whether somebody listens at a socket. It is there a little earlier, and refuses clients until then.
fn is_listening(socket: &Path) -> bool {
    // Who cannot be found in the table, by a path of another kind, is taken to be quick.
    socket.exists() && !is_only_bound(socket)
}

/// Whether the system has a socket of this name that does not accept clients.
fn is_only_bound(socket: &Path) -> bool {
    /// `__SO_ACCEPTCON`, as `/proc/net/unix` has it (`Documentation/filesystems/proc.rst`; `net/unix/af_unix.c`).
    const ACCEPTS: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let socket = socket.as_os_str().to_string_lossy();
    let entries = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(3);
        let flags = fields.next()?;
        (fields.nth(3)? == socket).then_some(flags)
    });
    let flags: Vec<&str> = entries.collect();
    !flags.is_empty() && !flags.contains(&ACCEPTS)
}
