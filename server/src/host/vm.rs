//! A VM: the address space that its devices share, and the process that may be their client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::{Ioas, SoftwareTracker};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::Peer;
use crate::guest::Share;
use crate::vfu::Connection;

/// How long the end of another peer's connections is waited for. Shorter than the 5 s after which QEMU gives a message up.
const DEPARTURE: Duration = Duration::from_secs(4);

/// An address space, bound to one client process at a time.
///
/// Dirty pages of one device are reported to whoever asks through another one of the VM, and a device writes memory that its own
/// client mapped. Clients from two processes would therefore see each other's addresses; so the first to connect binds the VM
/// until its last connection ends. The next one gets a new address space, and none of what the last one left.
#[derive(Debug)]
pub(crate) struct Vm {
    name: String,
    share: Share,
    bound: Mutex<Option<Bound>>,
    unbound: Condvar,
}

/// While there are connections.
#[derive(Debug)]
struct Bound {
    peer: Peer,
    ioas: Arc<Ioas>,
    connections: Vec<Arc<Connection>>,
}

/// A connection's hold on its VM.
#[derive(Debug)]
pub(crate) struct Binding {
    vm: Arc<Vm>,
    ioas: Arc<Ioas>,
    connection: Arc<Connection>,
}

/// Why a connection got no hold on its VM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError<'a> {
    /// Another process is bound to the VM.
    #[error("{asks} may not use VM {vm}, which {bound} uses")]
    Mismatch {
        /// Its name.
        vm: &'a str,
        /// Who uses it.
        bound: Peer,
        /// Who asks for it.
        asks: Peer,
    },
    /// There is no memory for its dirty bits.
    #[error("no memory for the VM's address space")]
    NoAddressSpace(#[from] std::io::Error),
}

impl Vm {
    pub(crate) fn new(name: &str, share: Share) -> Self {
        Self {
            name: name.to_owned(),
            share,
            bound: Mutex::default(),
            unbound: Condvar::new(),
        }
    }

    /// What its devices may map, all together.
    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    /// Binds the VM to a connection's peer for the connection's time. Waits for another peer that has left, until what it had is
    /// taken apart.
    pub(crate) fn bind(
        self: &Arc<Self>,
        peer: Peer,
        connection: Connection,
    ) -> Result<Binding, BindError<'_>> {
        let deadline = Instant::now() + DEPARTURE;
        let connection = Arc::new(connection);
        let mut slot = self.bound.lock();
        while let Some(other) = slot.as_ref().filter(|bound| !bound.peer.is(peer)) {
            let mismatch = BindError::Mismatch {
                vm: &self.name,
                bound: other.peer,
                asks: peer,
            };
            if !other.is_leaving() || self.unbound.wait_until(&mut slot, deadline).timed_out() {
                return Err(mismatch);
            }
        }
        let bound = match &mut *slot {
            Some(bound) => bound,
            none => none.insert(Bound {
                peer,
                ioas: new_ioas()?,
                connections: Vec::new(),
            }),
        };
        bound.connections.push(Arc::clone(&connection));
        Ok(Binding {
            vm: Arc::clone(self),
            ioas: Arc::clone(&bound.ioas),
            connection,
        })
    }
}

impl Bound {
    /// Whether the peer has closed every connection, and only their ends are awaited.
    fn is_leaving(&self) -> bool {
        self.connections.iter().all(|connection| connection.is_closed())
    }
}

fn new_ioas() -> std::io::Result<Arc<Ioas>> {
    Ok(Ioas::with_software_tracker(Arc::new(SoftwareTracker::new()?)))
}

impl BindError<'_> {
    /// What the client gets.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Mismatch { .. } => Errno::PERM,
            Self::NoAddressSpace(_) => Errno::NOMEM,
        }
    }
}

impl Binding {
    /// The VM's address space.
    pub(crate) fn ioas(&self) -> &Arc<Ioas> {
        &self.ioas
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut slot = self.vm.bound.lock();
        let Some(bound) = &mut *slot else { return };
        bound
            .connections
            .retain(|connection| !Arc::ptr_eq(connection, &self.connection));
        if bound.connections.is_empty() {
            *slot = None;
            self.vm.unbound.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;
    use std::os::unix::net::UnixStream;

    use super::*;

    const ONE: Peer = process(1);
    const OTHER: Peer = process(2);
    const NO_NUMBER: Peer = process(0);

    const fn process(pid: i32) -> Peer {
        Peer {
            pid: NonZeroI32::new(pid),
            uid: 0,
        }
    }

    /// A client's end of a connection, and the server's.
    fn connection() -> (UnixStream, Connection) {
        let (client, server) = UnixStream::pair().expect("sockets");
        (client, Connection::of(&server.into()).expect("a handle"))
    }

    /// Binds `vm` for a client that stays connected.
    fn bind(vm: &Arc<Vm>, peer: Peer) -> Result<(Binding, UnixStream), BindError<'_>> {
        let (client, connection) = connection();
        Ok((vm.bind(peer, connection)?, client))
    }

    #[test]
    fn a_second_process_is_refused_until_the_last_connection_of_the_first_has_gone() {
        let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
        let first = bind(&vm, ONE).expect("nobody is bound");
        let second = bind(&vm, ONE).expect("the same process");
        bind(&vm, OTHER).expect_err("bound to another process");
        drop(first);
        bind(&vm, OTHER).expect_err("one connection is left");
        drop(second);
        bind(&vm, OTHER).expect("nobody is bound");
    }

    #[test]
    fn a_process_that_comes_while_the_last_one_is_leaving_is_served() {
        let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
        let (first, client) = bind(&vm, ONE).expect("nobody is bound");
        drop(client);
        let leaving = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        bind(&vm, OTHER).expect("the first is on its way out");
        leaving.join().expect("it left");
    }

    #[test]
    fn processes_that_cannot_be_told_apart_do_not_share_a_vm() {
        let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
        let first = bind(&vm, NO_NUMBER).expect("nobody is bound");
        bind(&vm, NO_NUMBER).expect_err("it may be another one");
        drop(first);
        bind(&vm, NO_NUMBER).expect("nobody is bound");
    }

    #[test]
    fn the_next_client_finds_nothing_of_the_last_ones_address_space() {
        let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
        let (first, _) = bind(&vm, ONE).expect("nobody is bound");
        let (sibling, _) = bind(&vm, ONE).expect("the same process");
        assert!(Arc::ptr_eq(first.ioas(), sibling.ioas()));
        let old = Arc::downgrade(first.ioas());
        drop((first, sibling));
        assert!(
            old.upgrade().is_none(),
            "its memory goes with its last connection"
        );
    }
}
