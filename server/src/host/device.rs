//! One device's thread: takes clients one at a time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Stop;
use super::endpoint::{Listening, OpenEndpoint};
use crate::session::{self, Served};
use crate::vfu::Connection;

/// How long a session may take to end before the next client is told that the device is busy, or its own client is cut off.
const DEPARTURE: Duration = Duration::from_secs(5);

/// A device, and where its clients come from.
pub(super) struct DeviceServer {
    pub(super) seat: Seat,
    pub(super) endpoint: OpenEndpoint,
    pub(super) stop: Stop,
}

/// The place that one client at a time takes.
pub(super) struct Seat {
    pub(super) served: Arc<Served>,
}

/// A client that is being served.
struct Client {
    connection: Arc<Connection>,
    thread: JoinHandle<()>,
}

impl DeviceServer {
    /// Serves clients until the host stops, or the only client has gone.
    pub(super) fn run(self) {
        match self.endpoint {
            OpenEndpoint::Connected(socket) => {
                if let Some(client) = self.seat.admit(socket) {
                    client.serve_until(&self.stop);
                }
            }
            OpenEndpoint::Listening(listening) => self.seat.serve_all(&listening, &self.stop),
        }
    }
}

impl Seat {
    fn serve_all(&self, listening: &Listening, stop: &Stop) {
        tracing::info!(device = self.served.name, "ready for a client");
        let mut client: Option<Client> = None;
        while wait_for_client(listening, stop) {
            let socket = match listening.accept() {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::warn!(device = self.served.name, %error, "cannot accept a client");
                    // Out of descriptors, most likely: the client stays in the queue, and this must not become a busy loop.
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if client.as_ref().is_some_and(|client| !client.leaves()) {
                tracing::warn!(
                    device = self.served.name,
                    "refused a second client while one is connected"
                );
                session::refuse(socket, Errno::BUSY);
                continue;
            }
            client = self.admit(socket);
        }
        if let Some(client) = client {
            client.end();
        }
    }

    /// Gives a client a thread.
    fn admit(&self, socket: OwnedFd) -> Option<Client> {
        let started = Connection::of(&socket).and_then(|connection| {
            let connection = Arc::new(connection);
            let (served, ended) = (Arc::clone(&self.served), Arc::clone(&connection));
            let thread = std::thread::Builder::new()
                .name(format!("{} client", served.name))
                .spawn(move || {
                    session::serve(socket, &served);
                    // The handle keeps the socket open, and the client has to learn that nobody is there any more.
                    ended.close();
                })?;
            Ok(Client { connection, thread })
        });
        started
            .inspect_err(|error| tracing::error!(device = self.served.name, %error, "cannot serve a client"))
            .ok()
    }
}

impl Client {
    /// Whether the client has left; waits for the end of its session if it is leaving.
    fn leaves(&self) -> bool {
        if !self.thread.is_finished() && !self.connection.is_closed() {
            return false;
        }
        self.wait()
    }

    /// Waits for the end of the session, but not for ever. Whether it has ended.
    fn wait(&self) -> bool {
        let deadline = Instant::now() + DEPARTURE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.thread.is_finished()
    }

    fn serve_until(self, stop: &Stop) {
        while !self.thread.is_finished() {
            if is_ready(
                &mut [PollFd::new(stop, PollFlags::IN)],
                Some(Duration::from_millis(100)),
            ) {
                break;
            }
        }
        self.end();
    }

    /// Has what the client has asked for answered, and ends its session.
    fn end(self) {
        self.connection.drain();
        if !self.wait() {
            tracing::warn!("a client that does not take its answers is dropped");
        }
        self.connection.close();
        if self.thread.join().is_err() {
            tracing::error!("internal error: a client's thread panicked");
        }
    }
}

/// Waits for a client. False when the host stops.
fn wait_for_client(listening: &Listening, stop: &Stop) -> bool {
    let mut fds = [
        PollFd::new(stop, PollFlags::IN),
        PollFd::new(listening, PollFlags::IN),
    ];
    is_ready(&mut fds, None);
    fds[0].revents().is_empty()
}

fn is_ready(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    });
    loop {
        match poll(fds, limit.as_ref()) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            // Only a lack of kernel memory is left; try again rather than give the device up.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
