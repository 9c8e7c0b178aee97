//! A VM: the address space that its devices share, and the process that may be their client.

use std::os::fd::AsFd;
use std::sync::Arc;

use pagetrail_tracker::Ioas;
use parking_lot::Mutex;

/// An address space, bound to one client process at a time.
///
/// Dirty pages of one device are reported to whoever asks through another one of the VM, and a device writes memory that its own
/// client mapped. Clients from two processes would therefore see each other's addresses; so the first to connect binds the VM
/// until its last connection ends.
#[derive(Debug)]
pub(crate) struct Vm {
    name: String,
    ioas: Arc<Ioas>,
    bound: Mutex<Bound>,
}

#[derive(Debug, Default)]
struct Bound {
    peer: Option<Peer>,
    connections: usize,
}

/// The process at the other end of a connection, as the kernel knows it (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pid: i32,
    uid: u32,
}

/// A connection's hold on its VM.
#[derive(Debug)]
pub(crate) struct Binding {
    vm: Arc<Vm>,
}

/// Another process is bound to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process {} may not use VM {vm}, which process {} uses", .asks.pid, .bound.pid, vm = .vm)]
pub(crate) struct PeerMismatch<'a> {
    vm: &'a str,
    bound: Peer,
    asks: Peer,
}

impl Peer {
    /// The peer of a connected socket.
    pub(crate) fn of(socket: impl AsFd) -> std::io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        Ok(Self {
            pid: credentials.pid.as_raw_nonzero().get(),
            uid: credentials.uid.as_raw(),
        })
    }
}

impl Vm {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ioas: Ioas::new(),
            bound: Mutex::default(),
        }
    }

    /// Binds the VM to a connection's peer for the connection's time.
    pub(crate) fn bind(self: &Arc<Self>, peer: Peer) -> Result<Binding, PeerMismatch<'_>> {
        let mut bound = self.bound.lock();
        match bound.peer {
            Some(other) if other != peer => {
                return Err(PeerMismatch {
                    vm: &self.name,
                    bound: other,
                    asks: peer,
                });
            }
            _ => {}
        }
        bound.peer = Some(peer);
        bound.connections += 1;
        Ok(Binding { vm: Arc::clone(self) })
    }
}

impl Binding {
    /// The VM's address space.
    pub(crate) fn ioas(&self) -> &Arc<Ioas> {
        &self.vm.ioas
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut bound = self.vm.bound.lock();
        bound.connections -= 1;
        if bound.connections == 0 {
            bound.peer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Peer = Peer { pid: 1, uid: 0 };
    const OTHER: Peer = Peer { pid: 2, uid: 0 };

    #[test]
    fn a_second_process_is_refused_until_the_last_connection_of_the_first_has_gone() {
        let vm = Arc::new(Vm::new("vm"));
        let first = vm.bind(ONE).expect("nobody is bound");
        let second = vm.bind(ONE).expect("the same process");
        vm.bind(OTHER).expect_err("bound to another process");
        drop(first);
        vm.bind(OTHER).expect_err("one connection is left");
        drop(second);
        vm.bind(OTHER).expect("nobody is bound");
    }
}
