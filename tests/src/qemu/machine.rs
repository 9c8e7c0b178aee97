//! A QEMU process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::options::{MachineOptions, Sockets};
use super::qmp::Qmp;
use super::ram::GuestRam;
use super::{Agent, QemuError, Result, wait_for};

/// How long QEMU may take to have its devices and listen.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How long QEMU may take to end.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Lines of a log that an error shows.
const LAST_LINES: usize = 30;

/// A running VM. Its process is killed when this is dropped.
pub struct Machine {
    process: Process,
    qmp: Qmp,
    ram: GuestRam,
    sockets: Sockets,
}

impl Machine {
    /// Starts a VM whose sockets and logs are in `folder`, under `name`.
    ///
    /// # Errors
    ///
    /// QEMU does not start, or ends at once; the error has what it wrote.
    pub fn start(options: &MachineOptions, folder: &Path, name: &str) -> Result<Self> {
        let sockets = Sockets::new(folder, name);
        let log = folder.join(format!("{name}.log"));
        let mut command = options.command(&sockets);
        tracing::debug!("{command:?}");
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| QemuError::Start {
                binary: options.binary.display().to_string(),
                error,
            })?;
        let mut process = Process { child, log };
        let qmp = wait_for("QEMU's monitor", START_LIMIT, || {
            process.running()?;
            match Qmp::connect(&sockets.qmp) {
                Ok(qmp) => Ok(Some(qmp)),
                Err(QemuError::Io(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        // QEMU makes its sockets before its devices, and may end over those.
        let qmp = match qmp {
            Err(QemuError::MonitorClosed) => {
                process.await_end()?;
                return Err(process.ended());
            }
            other => other?,
        };
        let ram = GuestRam::of_process(process.child.id())?;
        Ok(Self {
            process,
            qmp,
            ram,
            sockets,
        })
    }

    /// The monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The guest's memory.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// A new connection to the guest's agent.
    ///
    /// # Errors
    ///
    /// QEMU does not listen.
    pub fn agent(&self) -> Result<Agent> {
        Agent::connect(&self.sockets.agent)
    }

    /// QEMU's name for what the VM does, for example `running` or `postmigrate`.
    ///
    /// # Errors
    ///
    /// See [`Qmp::execute`].
    pub fn run_state(&mut self) -> Result<String> {
        let status = self.qmp.execute("query-status", &json!({}))?;
        Ok(text(&status["status"]))
    }

    /// Waits for a state of the VM.
    ///
    /// # Errors
    ///
    /// [`QemuError::Late`], with the state that it is in.
    pub fn await_run_state(&mut self, wanted: &str, limit: Duration) -> Result<()> {
        let mut last = String::new();
        let waited = wait_for("", limit, || {
            last = self.run_state()?;
            Ok((last == wanted).then_some(()))
        });
        match waited {
            Err(QemuError::Late { .. }) => Err(QemuError::Late {
                what: format!("the VM is {wanted} (it is {last})"),
                limit,
            }),
            other => other,
        }
    }

    /// Lets a VM that stands still run.
    ///
    /// # Errors
    ///
    /// See [`Qmp::execute`].
    pub fn resume(&mut self) -> Result<()> {
        self.qmp.execute("cont", &json!({})).map(drop)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.running().is_ok()
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.child.kill()?;
        self.process.child.wait()?;
        Ok(())
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    ///
    /// [`QemuError::Late`].
    pub fn await_end(&mut self) -> Result<ExitStatus> {
        self.process.await_end()
    }

    /// Ends QEMU in order.
    ///
    /// # Errors
    ///
    /// It does not end in time.
    pub fn quit(mut self) -> Result<()> {
        // The answer may be cut off by the end.
        let _ = self.qmp.execute("quit", &json!({}));
        self.await_end().map(drop)
    }

    /// What QEMU wrote.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What the guest's kernel wrote.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(&self.sockets.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The process, which is killed when this is dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(_) => Err(self.ended()),
        }
    }

    fn await_end(&mut self) -> Result<ExitStatus> {
        wait_for("the end of QEMU", END_LIMIT, || Ok(self.child.try_wait()?))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn ended(&mut self) -> QemuError {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            other => format!("{other:?}"),
        };
        QemuError::Ended {
            status,
            log: last_lines(&self.log(), LAST_LINES),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
