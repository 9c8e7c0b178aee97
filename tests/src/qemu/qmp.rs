//! The monitor: commands, answers, and events between them.
//!
//! A thread reads, so that an event can be waited for with a deadline and no line is ever cut in two. Answers are taken as JSON:
//! the QEMU under test is newer than any crate with its types.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{QemuError, Result};
use crate::record::MigrateInfo;

/// How long a command may take. QEMU answers some only when a device's server has answered.
const PATIENCE: Duration = Duration::from_mins(1);

/// Something that QEMU tells unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, for example `MIGRATION`.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// What the reading thread finds.
enum Line {
    Answer(Value),
    Event(Event),
}

/// A connection to a monitor.
pub struct Qmp {
    stream: UnixStream,
    lines: Receiver<Line>,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Connects and leaves negotiation mode.
    ///
    /// # Errors
    ///
    /// Nobody listens, or it is no monitor.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        let reader = BufReader::new(stream.try_clone()?);
        let (sender, lines) = channel();
        std::thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || {
                for text in reader.lines() {
                    let Some(line) = text.ok().as_deref().and_then(parse) else {
                        break;
                    };
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            })?;
        let mut qmp = Self {
            stream,
            lines,
            events: VecDeque::new(),
        };
        qmp.answer("the greeting")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command.
    ///
    /// # Errors
    ///
    /// [`QemuError::Refused`], [`QemuError::MonitorClosed`] or [`QemuError::Late`].
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        tracing::debug!(target: "qmp", "{line}");
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .map_err(|_| QemuError::MonitorClosed)?;
        let mut answer = self.answer(command)?;
        if let Some(error) = answer.get("error") {
            return Err(QemuError::Refused {
                command: command.to_owned(),
                message: error["desc"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(answer["return"].take())
    }

    /// How the migration is, the last one when there is none under way.
    ///
    /// # Errors
    ///
    /// See [`execute`](Self::execute).
    pub fn migrate_info(&mut self) -> Result<MigrateInfo> {
        let answer = self.execute("query-migrate", &json!({}))?;
        let text = answer.to_string();
        serde_json::from_value(answer).map_err(|_| QemuError::Strange {
            what: "query-migrate",
            text,
        })
    }

    fn answer(&mut self, what: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.line(deadline)? {
                Some(Line::Answer(answer)) => return Ok(answer),
                Some(Line::Event(event)) => self.events.push_back(event),
                None => {
                    return Err(QemuError::Late {
                        what: format!("an answer to {what}"),
                        limit: PATIENCE,
                    });
                }
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<Option<Line>> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(QemuError::MonitorClosed),
        }
    }

    /// The next event, `None` when there is none in time.
    ///
    /// # Errors
    ///
    /// [`QemuError::MonitorClosed`].
    pub fn event(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let deadline = Instant::now() + timeout;
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        loop {
            match self.line(deadline)? {
                Some(Line::Event(event)) => return Ok(Some(event)),
                // An answer that came after its time.
                Some(Line::Answer(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Waits for an event; those before it are dropped.
    ///
    /// # Errors
    ///
    /// [`QemuError::Late`] or [`QemuError::MonitorClosed`].
    pub fn await_event(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = self.event(left)? else {
                return Err(QemuError::Late {
                    what: what.to_owned(),
                    limit,
                });
            };
            if wanted(&event) {
                return Ok(event);
            }
        }
    }
}

fn parse(text: &str) -> Option<Line> {
    tracing::trace!(target: "qmp", "{text}");
    let mut value: Value = serde_json::from_str(text).ok()?;
    let Some(name) = value.get("event") else {
        return Some(Line::Answer(value));
    };
    Some(Line::Event(Event {
        name: name.as_str()?.to_owned(),
        data: value["data"].take(),
    }))
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Ends the thread that reads. The connection may have ended already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use serde_json::json;

    use super::{QemuError, Qmp};

    /// A monitor that says `lines` after each command.
    fn monitor(answers: Vec<&'static str>) -> (tempfile::TempDir, Qmp) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut commands = BufReader::new(stream.try_clone().expect("a stream")).lines();
            stream.write_all(b"{\"QMP\": {}}\n").expect("a write");
            for answer in std::iter::once("{\"return\": {}}").chain(answers) {
                let _ = commands.next();
                stream.write_all(answer.as_bytes()).expect("a write");
                stream.write_all(b"\n").expect("a write");
            }
        });
        let qmp = Qmp::connect(&path).expect("a monitor");
        (folder, qmp)
    }

    #[test]
    fn events_between_command_and_answer_are_kept_in_their_order() {
        let (_folder, mut qmp) = monitor(vec![
            "{\"event\": \"STOP\", \"data\": {}}\n{\"event\": \"RESUME\", \"data\": {\"a\": 1}}\n{\"return\": 5}",
        ]);
        assert_eq!(qmp.execute("x", &json!({})).expect("an answer"), json!(5));
        let first = qmp.event(Duration::ZERO).expect("a monitor").expect("an event");
        assert_eq!(first.name, "STOP");
        let second = qmp
            .await_event("RESUME", Duration::ZERO, |event| event.name == "RESUME")
            .expect("the event");
        assert_eq!(second.data, json!({"a": 1}));
    }

    #[test]
    fn a_refusal_has_its_reason_and_an_end_is_told() {
        let (_folder, mut qmp) = monitor(vec![
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}",
        ]);
        let error = qmp.execute("migrate", &json!({})).expect_err("it is refused");
        assert_eq!(error.to_string(), "migrate: not now");
        let error = qmp.event(Duration::from_secs(10)).expect_err("it has ended");
        assert!(matches!(error, QemuError::MonitorClosed));
    }
}
