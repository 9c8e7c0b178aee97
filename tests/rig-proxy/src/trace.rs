//! [`Trace`]: what system calls a process makes, by `strace`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

/// A trace of all threads of a process. The process goes on untraced when this is dropped.
pub(crate) struct Trace {
    strace: Child,
    output: NamedTempFile,
    /// Kept: without a reader strace would be killed as it ends, with what it has not written yet.
    says: BufReader<ChildStderr>,
}

impl Trace {
    /// Begins to trace the process.
    pub(crate) fn begin(process: u32) -> Result<Self> {
        let output = NamedTempFile::new()?;
        let mut strace = Command::new("strace")
            .args(["--follow-forks", "--attach", &process.to_string(), "--output"])
            .arg(output.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run strace")?;
        let says = strace.stderr.take().context("strace has no standard error")?;
        let mut trace = Self {
            strace,
            output,
            says: BufReader::new(says),
        };
        let mut line = String::new();
        trace.says.read_line(&mut line)?;
        ensure!(line.contains("attached"), "strace does not trace: {line}");
        Ok(trace)
    }

    /// Ends the trace. Returns the calls that came to an end meanwhile, a line for each.
    pub(crate) fn end(mut self) -> Result<Vec<String>> {
        kill_process(Pid::from_child(&self.strace), Signal::TERM)?;
        self.strace.wait()?;
        let output = fs::read_to_string(self.output.path())?;
        // One that goes on has no result.
        let ended = output.lines().filter(|line| line.contains(" = "));
        Ok(ended.map(str::to_owned).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // When it is killed, the kernel lets go of what it traced.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
