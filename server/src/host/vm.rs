//! A VM: the address space that its devices share, and the process that may be their client.

use std::sync::Arc;

use pagetrail_tracker::{Ioas, SoftwareTracker};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Peer;

/// An address space, bound to one client process at a time.
///
/// Dirty pages of one device are reported to whoever asks through another one of the VM, and a device writes memory that its own
/// client mapped. Clients from two processes would therefore see each other's addresses; so the first to connect binds the VM
/// until its last connection ends. The next one gets a new address space, and none of what the last one left.
#[derive(Debug)]
pub(crate) struct Vm {
    name: String,
    bound: Mutex<Option<Bound>>,
}

/// While there are connections.
#[derive(Debug)]
struct Bound {
    peer: Peer,
    ioas: Arc<Ioas>,
    connections: usize,
}

/// A connection's hold on its VM.
#[derive(Debug)]
pub(crate) struct Binding {
    vm: Arc<Vm>,
    ioas: Arc<Ioas>,
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
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            bound: Mutex::default(),
        }
    }

    /// Binds the VM to a connection's peer for the connection's time.
    pub(crate) fn bind(self: &Arc<Self>, peer: Peer) -> Result<Binding, BindError<'_>> {
        let mut bound = self.bound.lock();
        let bound = match &mut *bound {
            Some(bound) if !bound.peer.is(peer) => {
                return Err(BindError::Mismatch {
                    vm: &self.name,
                    bound: bound.peer,
                    asks: peer,
                });
            }
            Some(bound) => bound,
            none => none.insert(Bound {
                peer,
                ioas: new_ioas()?,
                connections: 0,
            }),
        };
        bound.connections += 1;
        Ok(Binding {
            vm: Arc::clone(self),
            ioas: Arc::clone(&bound.ioas),
        })
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
        let mut bound = self.vm.bound.lock();
        if let Some(some) = &mut *bound {
            some.connections -= 1;
            if some.connections == 0 {
                *bound = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

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

    #[test]
    fn processes_that_cannot_be_told_apart_do_not_share_a_vm() {
        let vm = Arc::new(Vm::new("vm"));
        let first = vm.bind(NO_NUMBER).expect("nobody is bound");
        vm.bind(NO_NUMBER).expect_err("it may be another one");
        drop(first);
        vm.bind(NO_NUMBER).expect("nobody is bound");
    }

    #[test]
    fn the_next_client_finds_nothing_of_the_last_ones_address_space() {
        let vm = Arc::new(Vm::new("vm"));
        let first = vm.bind(ONE).expect("nobody is bound");
        let sibling = vm.bind(ONE).expect("the same process");
        assert!(Arc::ptr_eq(first.ioas(), sibling.ioas()));
        let old = Arc::downgrade(first.ioas());
        drop((first, sibling));
        assert!(
            old.upgrade().is_none(),
            "its memory goes with its last connection"
        );
    }
}
