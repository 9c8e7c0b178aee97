//! The process at the other end of a connection, as the kernel knows it (`SO_PEERCRED`).
//!
//! A process outside of this one's PID namespace has no number here: the kernel says 0. It is a client like any other, but
//! nobody can tell whether the next one without a number is the same.
#![allow(unsafe_code)] // rustix reads 0 into a type that cannot be 0.

use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// `None` outside of this process's PID namespace.
    pub(super) pid: Option<NonZeroI32>,
    pub(super) uid: u32,
}

impl Peer {
    /// The peer of a connected socket.
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut credentials = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the option's value is a `ucred`, for which there is room, and any number is valid in its fields.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut len,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            pid: NonZeroI32::new(credentials.pid),
            uid: credentials.uid,
        })
    }

    /// Whether both are known to be one process.
    pub(super) fn is(self, other: Self) -> bool {
        self.pid.is_some() && self.pid == other.pid && self.uid == other.uid
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process of another PID namespace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let peer = Peer::of(&socket).expect("credentials");
        assert_eq!(
            peer.pid.map(NonZeroI32::get),
            i32::try_from(std::process::id()).ok()
        );
        assert_eq!(peer.to_string(), format!("process {}", std::process::id()));
    }
}
