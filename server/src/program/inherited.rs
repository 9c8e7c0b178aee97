//! File descriptors that came from the program that started this one: `--fd` and socket activation.

// A number from the command line or the environment becomes a descriptor that is owned. Nothing but this can turn one into the other.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::host::{Endpoint, EndpointError};

/// Why no socket of the program that started this one can be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The environment (`LISTEN_FDS` and its company) is malformed, or names descriptors that are not open.
    #[error("cannot use the sockets of the service manager")]
    Environment(#[source] io::Error),
    /// Neither an option nor the service manager says where clients come from.
    #[error("there is no socket to serve: give --socket-path=PATH or --fd=N (see --help)")]
    None,
    /// The service manager passed so many sockets, for one device.
    #[error("the service manager passed {0} sockets for one device: pass one, or use pagetrail serve")]
    Several(usize),
    /// The service manager passed no socket of this name.
    #[error(
        "the service manager passed no socket named {name:?}; it passed {passed:?} (FileDescriptorName=)"
    )]
    NotNamed {
        /// The name that was asked for.
        name: String,
        /// The names of those that are left.
        passed: Vec<String>,
    },
    /// 0, 1 or 2.
    #[error("descriptor {0} is stdin, stdout or stderr: pass the socket as 3 or higher")]
    Standard(RawFd),
    /// Nothing is open there.
    #[error("descriptor {0} is not open: the program that starts this one must leave it open across exec")]
    NotOpen(RawFd),
    /// A file that this program opened itself, or one that was taken before.
    #[error(
        "descriptor {0} was not inherited: the program that starts this one must leave it open across exec"
    )]
    NotInherited(RawFd),
    /// Something is open there that cannot be served.
    #[error("descriptor {fd} cannot be served")]
    Unfit {
        /// The descriptor.
        fd: RawFd,
        /// What is wrong with it.
        source: EndpointError,
    },
}

/// The sockets that the service manager passed and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Activation {
    left: Vec<(RawFd, String)>,
}

impl Activation {
    /// What the environment says (`LISTEN_FDS` and its company). The first call gets the sockets; afterwards none are left.
    ///
    /// # Errors
    ///
    /// [`SocketError::Environment`].
    pub fn from_environment() -> Result<Self, SocketError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self::default());
        }
        let passed = sd_notify::listen_fds_with_names().map_err(SocketError::Environment)?;
        Ok(Self {
            left: passed.collect(),
        })
    }

    /// Takes the one socket that was passed.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub fn take_only(&mut self) -> Result<Endpoint, SocketError> {
        match self.left.len() {
            0 => Err(SocketError::None),
            1 => take(self.left.remove(0).0),
            several => Err(SocketError::Several(several)),
        }
    }

    /// Takes the socket with this name (`FileDescriptorName=` of the socket unit).
    ///
    /// # Errors
    ///
    /// When there is none; the message names those that there are.
    pub fn take_named(&mut self, name: &str) -> Result<Endpoint, SocketError> {
        let Some(index) = self.left.iter().position(|(_, candidate)| candidate == name) else {
            return Err(SocketError::NotNamed {
                name: name.to_owned(),
                passed: self.left.iter().map(|(_, name)| name.clone()).collect(),
            });
        };
        take(self.left.remove(index).0)
    }
}

/// The endpoint behind a descriptor that was left open across exec. It is left open across no other.
///
/// # Errors
///
/// When it is not open, not inherited, or not a Unix stream socket.
pub(super) fn endpoint(fd: RawFd) -> Result<Endpoint, SocketError> {
    if (0..=2).contains(&fd) {
        return Err(SocketError::Standard(fd));
    }
    if fd < 0 {
        return Err(SocketError::NotOpen(fd));
    }
    // SAFETY: two system calls on a number; one that is no descriptor is an error of theirs.
    let candidate = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(candidate).map_err(|_| SocketError::NotOpen(fd))?;
    // What comes through exec does not have the flag; what a Rust program opens has it, and so has what was taken here.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(SocketError::NotInherited(fd));
    }
    fcntl_setfd(candidate, FdFlags::CLOEXEC).map_err(|_| SocketError::NotOpen(fd))?;
    take(fd)
}

/// Takes a descriptor that was inherited, and that nobody has taken.
fn take(fd: RawFd) -> Result<Endpoint, SocketError> {
    // SAFETY: by this function's contract it came through exec and has no owner yet; callers see to it that it is open.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    debug_assert!(fcntl_getfd(owned.as_fd()).is_ok(), "it is open");
    Endpoint::from_fd(owned).map_err(|source| SocketError::Unfit { fd, source })
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A descriptor as exec leaves it.
    fn inherited(file: impl Into<OwnedFd>) -> RawFd {
        let file = file.into();
        fcntl_setfd(&file, FdFlags::empty()).expect("a flag");
        file.into_raw_fd()
    }

    #[test]
    fn listening_and_connected_sockets_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("s")).expect("bind");
        assert!(matches!(endpoint(inherited(listener)), Ok(Endpoint::Listener(_))));
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(matches!(endpoint(inherited(one)), Ok(Endpoint::Connected(_))));
    }

    #[test]
    fn what_is_not_a_socket_is_refused_with_its_number() {
        for (fd, says) in [(1, "stdout"), (-1, "not open"), (1_000_000, "not open")] {
            let error = endpoint(fd).expect_err("refused").to_string();
            assert!(error.contains(&fd.to_string()) && error.contains(says), "{error}");
        }
        endpoint(inherited(tempfile::tempfile().expect("a file"))).expect_err("a file");
    }

    #[test]
    fn a_descriptor_has_one_owner() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let fd = inherited(one);
        let _taken = endpoint(fd).expect("a socket");
        assert!(matches!(endpoint(fd), Err(SocketError::NotInherited(_))));
    }

    #[test]
    fn a_missing_socket_says_what_to_give() {
        let error = Activation::default().take_only().expect_err("none");
        assert!(error.to_string().contains("--socket-path"), "{error}");
        let mut other = Activation {
            left: vec![(3, "web".into())],
        };
        let error = other.take_named("db").expect_err("none of that name").to_string();
        assert!(error.contains("\"db\"") && error.contains("\"web\""), "{error}");
    }
}
