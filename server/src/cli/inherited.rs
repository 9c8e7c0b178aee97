//! File descriptors that came from the program that started this one: `--fd` and socket activation.

// A number from the command line or the environment becomes a descriptor that is owned. Nothing but this can turn one into the other.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail};
use pagetrail::host::Endpoint;

/// The sockets that the service manager passed and that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Activation {
    left: Vec<(RawFd, String)>,
}

impl Activation {
    /// What the environment says (`LISTEN_FDS` and its company). Called once: afterwards the sockets are the value's.
    ///
    /// # Errors
    ///
    /// When the environment is malformed, or names descriptors that are not open.
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        let passed =
            sd_notify::listen_fds_with_names().context("cannot use the sockets of the service manager")?;
        Ok(Self {
            left: passed.collect(),
        })
    }

    /// Takes the one socket that was passed.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub(super) fn take_only(&mut self) -> anyhow::Result<Endpoint> {
        match self.left.len() {
            0 => {
                bail!("there is no socket to serve: give --socket-path=PATH or --fd=N (pagetrail dma --help)")
            }
            1 => endpoint(self.left.remove(0).0),
            several => bail!(
                "the service manager passed {several} sockets for one device: pass one, or use pagetrail serve"
            ),
        }
    }

    /// Takes the socket with this name (`FileDescriptorName=` of the socket unit).
    ///
    /// # Errors
    ///
    /// When there is none; the message names those that there are.
    pub(super) fn take_named(&mut self, name: &str) -> anyhow::Result<Endpoint> {
        let Some(index) = self.left.iter().position(|(_, candidate)| candidate == name) else {
            let names: Vec<&str> = self.left.iter().map(|(_, name)| name.as_str()).collect();
            bail!(
                "the service manager passed no socket named {name:?}; it passed {names:?} (FileDescriptorName=)"
            );
        };
        endpoint(self.left.remove(index).0)
    }
}

/// The endpoint behind an inherited descriptor. Called at most once for each number, before the program opens files of its own.
///
/// # Errors
///
/// When it is not open, or not a Unix stream socket.
pub(super) fn endpoint(fd: RawFd) -> anyhow::Result<Endpoint> {
    if (0..=2).contains(&fd) {
        bail!("descriptor {fd} is stdin, stdout or stderr: pass the socket as 3 or higher");
    }
    // SAFETY: F_GETFD looks at a number and touches no memory; a number that is no descriptor is an error.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        bail!("descriptor {fd} is not open: the program that starts this one must leave it open across exec");
    }
    // SAFETY: it is open, it is not one that the standard library uses, and by this function's contract nothing in this
    // program has opened it or taken it before.
    let fd_owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Endpoint::from_fd(fd_owned).with_context(|| format!("descriptor {fd} cannot be served"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn listening_and_connected_sockets_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("s")).expect("bind");
        assert!(matches!(
            endpoint(listener.into_raw_fd()),
            Ok(Endpoint::Listener(_))
        ));
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(matches!(endpoint(one.into_raw_fd()), Ok(Endpoint::Connected(_))));
    }

    #[test]
    fn what_is_not_a_socket_is_refused_with_its_number() {
        for (fd, says) in [(1, "stdout"), (-1, "not open"), (1_000_000, "not open")] {
            let error = endpoint(fd).expect_err("refused").to_string();
            assert!(error.contains(&fd.to_string()) && error.contains(says), "{error}");
        }
        let file = tempfile::tempfile().expect("a file").into_raw_fd();
        endpoint(file).expect_err("a file");
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
