//! A man in the middle: a proxy in front of a real server that breaks one promise.
//!
//! Messages go through as they are, file descriptors included, except for what a [`Rule`] says of them. A proxy without rules is
//! as good as the server behind it.

mod rule;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_user_check::client::{Connection, Deadline, Error, Message};
use vfio_user_check::wire::{Header, consts};
use zerocopy::IntoBytes;

pub(crate) use rule::{Framing, Rule, Stage, Verdict, always, done, refusal};

/// How often a proxy looks whether it is to stop.
const POLL: Duration = Duration::from_millis(10);

/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A proxy that listens at a path of its own.
pub(crate) struct Proxy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Proxy {
    /// Listens at `path` for clients of the server at `upstream`.
    pub(crate) fn start(path: &Path, upstream: &Path, rules: Arc<Vec<Rule>>) -> Self {
        let listener = UnixListener::bind(path).expect("the proxy can listen");
        listener
            .set_nonblocking(true)
            .expect("the listener can be made non-blocking");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (stop, upstream) = (Arc::clone(&stop), upstream.to_owned());
            std::thread::spawn(move || listen(&listener, &upstream, &rules, &stop))
        };
        Self {
            stop,
            thread: Some(thread),
            path: path.to_owned(),
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy has been printed; the test that it belongs to fails on its own.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(listener: &UnixListener, upstream: &Path, rules: &[Rule], stop: &AtomicBool) {
    let clients = rules.iter().find_map(Rule::clients).unwrap_or(usize::MAX);
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        if served >= clients {
            std::thread::sleep(POLL);
            continue;
        }
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        served += 1;
        // A server that is gone is a client that is not served.
        if let (Ok(client), Ok(server)) = (connection(stream), connect(upstream)) {
            let mut relay = Relay {
                client,
                server,
                rules,
                pending: VecDeque::new(),
            };
            relay.run(stop);
        }
    }
}

fn connection(stream: UnixStream) -> std::io::Result<Connection> {
    stream.set_nonblocking(true)?;
    Ok(Connection::from_socket(OwnedFd::from(stream)))
}

fn connect(path: &Path) -> std::io::Result<Connection> {
    connection(UnixStream::connect(path)?)
}

/// One client and its connection to the server.
struct Relay<'a> {
    client: Connection,
    server: Connection,
    rules: &'a [Rule],
    /// Commands whose reply is due.
    pending: VecDeque<Message>,
}

/// The end of a connection.
struct Ended;

impl From<Error> for Ended {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Relay<'_> {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.turn().is_err() {
                return;
            }
        }
    }

    fn turn(&mut self) -> Result<(), Ended> {
        let (from_client, from_server) = self.readable();
        // What the server has said goes first: it ends a connection after its last reply.
        if from_server {
            self.reply()?;
        }
        if from_client {
            self.request()?;
        }
        Ok(())
    }

    fn readable(&self) -> (bool, bool) {
        let timeout = Timespec::try_from(POLL).expect("it fits");
        let mut fds = [
            PollFd::from_borrowed_fd(self.client.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.server.as_fd(), PollFlags::IN),
        ];
        if poll(&mut fds, Some(&timeout)).is_err() {
            return (false, false);
        }
        (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
    }

    fn request(&mut self) -> Result<(), Ended> {
        let mut message = match self.client.receive_raw(Deadline::after(PATIENCE)) {
            Ok(message) => message,
            Err(Error::Protocol { .. }) => return self.bad_framing(),
            Err(error) => return Err(error.into()),
        };
        for rule in self.rules {
            match rule.request(&mut message) {
                Verdict::Forward => {}
                Verdict::Answer(reply) => return send(&mut self.client, &reply),
                Verdict::Swallow => return Ok(()),
                Verdict::Close => return Err(Ended),
            }
        }
        send(&mut self.server, &message)?;
        let is_command = message.header.flags & consts::FLAG_TYPE_MASK == consts::FLAG_TYPE_COMMAND;
        if is_command && message.header.flags & consts::FLAG_NO_REPLY == 0 {
            self.pending.push_back(Message {
                fds: Vec::new(),
                ..message
            });
        }
        Ok(())
    }

    fn bad_framing(&mut self) -> Result<(), Ended> {
        match self.rules.iter().find_map(Rule::framing) {
            None => Err(Ended),
            Some(Framing::Answered) => {
                let header = Header {
                    flags: consts::FLAG_TYPE_REPLY,
                    size: consts::HEADER_SIZE as u32,
                    ..Header::default()
                };
                let reply = Message {
                    header,
                    payload: Vec::new(),
                    fds: Vec::new(),
                };
                send(&mut self.client, &reply)
            }
        }
    }

    fn reply(&mut self) -> Result<(), Ended> {
        let mut message = self.server.receive_raw(Deadline::after(PATIENCE))?;
        let belongs = |request: &Message| {
            request.header.id == message.header.id && request.header.command == message.header.command
        };
        let request = self
            .pending
            .iter()
            .position(belongs)
            .and_then(|index| self.pending.remove(index));
        if let Some(request) = request {
            for rule in self.rules {
                match rule.reply(&request, &mut message) {
                    Verdict::Forward => {}
                    Verdict::Answer(reply) => message = reply,
                    Verdict::Swallow => return Ok(()),
                    Verdict::Close => return Err(Ended),
                }
            }
        }
        send(&mut self.client, &message)
    }
}

/// Sends a message; its header says what its size is.
fn send(to: &mut Connection, message: &Message) -> Result<(), Ended> {
    let bytes = [message.header.as_bytes(), &message.payload].concat();
    let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
    Ok(to.send_raw(&bytes, &fds, Deadline::after(PATIENCE))?)
}
