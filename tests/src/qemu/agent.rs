//! The agent in a guest, over a serial port that is a socket here.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use pagetrail_guest::protocol::{Answer, Command, Reply, Report, Request};

use super::{QemuError, Result};

/// How long a command may take in an emulated guest on a busy host.
const PATIENCE: Duration = Duration::from_mins(3);

/// How often a guest that may still be booting is asked.
const AGAIN: Duration = Duration::from_secs(2);

/// A connection to the agent.
pub struct Agent {
    lines: BufReader<UnixStream>,
    partial: Vec<u8>,
    next_id: u64,
}

impl Agent {
    /// Connects to the serial port.
    ///
    /// # Errors
    ///
    /// QEMU does not listen.
    pub(super) fn connect(path: &Path) -> Result<Self> {
        Ok(Self {
            lines: BufReader::new(UnixStream::connect(path)?),
            partial: Vec::new(),
            next_id: 1,
        })
    }

    /// Runs a command in a guest whose agent listens.
    ///
    /// # Errors
    ///
    /// [`QemuError::Agent`] when the agent could not do it, [`QemuError::Late`] when there is no answer.
    pub fn run(&mut self, command: Command) -> Result<Report> {
        let what = format!("the agent's answer to {command:?}");
        let id = self.send(command)?;
        let answer = self.receive(id, Instant::now() + PATIENCE)?;
        answer.ok_or(QemuError::Late {
            what,
            limit: PATIENCE,
        })
    }

    /// Waits for a guest that may still be booting, and asks how it is.
    ///
    /// # Errors
    ///
    /// See [`run`](Self::run).
    pub fn hello(&mut self, limit: Duration) -> Result<Report> {
        let deadline = Instant::now() + limit;
        let first = self.next_id;
        while Instant::now() < deadline {
            self.send(Command::Hello)?;
            if let Some(report) = self.receive(first, Instant::now() + AGAIN)? {
                return Ok(report);
            }
        }
        Err(QemuError::Late {
            what: "the guest's agent says hello".to_owned(),
            limit,
        })
    }

    /// Has the machine reset; there is no answer to that.
    ///
    /// # Errors
    ///
    /// QEMU has ended.
    pub fn reboot(&mut self) -> Result<()> {
        self.send(Command::Reboot).map(drop)
    }

    fn send(&mut self, command: Command) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let request = Request { id, command };
        let text = serde_json::to_string(&request).map_err(std::io::Error::from)?;
        tracing::debug!(target: "agent", "{text}");
        // Half a line may be left from before: end it.
        self.lines.get_mut().write_all(format!("\n{text}\n").as_bytes())?;
        Ok(id)
    }

    /// Takes the next answer to request `oldest` or a later one; `None` when there is none in time.
    fn receive(&mut self, oldest: u64, deadline: Instant) -> Result<Option<Report>> {
        while let Some(line) = self.line(deadline)? {
            // What is no reply is what is left of one.
            let Ok(reply) = serde_json::from_slice::<Reply>(&line) else {
                continue;
            };
            if reply.id < oldest {
                continue;
            }
            return match reply.answer {
                Answer::Report(report) => Ok(Some(report)),
                Answer::Error(message) => Err(QemuError::Agent(message)),
            };
        }
        Ok(None)
    }

    fn line(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.lines.get_ref().set_read_timeout(Some(left))?;
            match self.lines.read_until(b'\n', &mut self.partial) {
                Ok(0) => return Err(QemuError::Agent("its serial port is closed".to_owned())),
                Ok(_) if self.partial.ends_with(b"\n") => return Ok(Some(std::mem::take(&mut self.partial))),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
