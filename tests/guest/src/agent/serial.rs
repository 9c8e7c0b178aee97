//! The line to the test.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};

use anyhow::{Result, bail};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::protocol::{Reply, Request};

/// A serial port that carries lines.
pub(super) struct Port {
    lines: BufReader<File>,
}

impl Port {
    /// Opens the port and has the kernel pass bytes through as they are.
    pub(super) fn open(path: &str) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut settings = tcgetattr(&file)?;
        settings.make_raw();
        tcsetattr(&file, OptionalActions::Now, &settings)?;
        Ok(Self {
            lines: BufReader::new(file),
        })
    }

    /// Waits for a request. Lines that are none are dropped: the other end asks again.
    pub(super) fn receive(&mut self) -> Result<Request> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.lines.read_until(b'\n', &mut line)? == 0 {
                bail!("the serial port has ended");
            }
            if line == b"\n" {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(request) => return Ok(request),
                Err(error) => eprintln!("pagetrail-guest: not a request: {error}"),
            }
        }
    }

    /// Sends a reply.
    pub(super) fn send(&mut self, reply: &Reply) -> Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        Ok(self.lines.get_mut().write_all(&line)?)
    }
}
