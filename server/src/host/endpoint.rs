//! Opening a device's socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::Endpoint;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The path does not fit into a socket address.
    #[error("socket path {0} is longer than 107 bytes: choose a shorter one, for example under /run or /tmp")]
    PathTooLong(PathBuf),
    /// Another process listens there.
    #[error("another process serves {0}: stop it, or choose another --socket-path")]
    InUse(PathBuf),
    /// Something that is not a socket is there.
    #[error("{0} exists and is not a socket: remove it, or choose another --socket-path")]
    NotASocket(PathBuf),
    /// The directory is missing.
    #[error("the directory of {0} does not exist: make it first")]
    NoDirectory(PathBuf),
    /// Any other reason.
    #[error("cannot listen on {path}")]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The descriptor that was given is not a connected or listening Unix stream socket.
    #[error("the file descriptor is not a connected or listening Unix stream socket")]
    NotAUnixSocket(#[source] io::Error),
}

/// A socket that is open.
#[derive(Debug)]
pub(super) enum OpenEndpoint {
    Listening(Listening),
    Connected(OwnedFd),
}

/// A listening socket; removed from the file system at the end if it was made here.
#[derive(Debug)]
pub(super) struct Listening {
    socket: OwnedFd,
    path: Option<PathBuf>,
}

impl OpenEndpoint {
    pub(super) fn open(endpoint: Endpoint) -> Result<Self, EndpointError> {
        match endpoint {
            Endpoint::Path(path) => listen(path).map(Self::Listening),
            Endpoint::Listener(socket) => {
                check_unix_stream(&socket)?;
                Ok(Self::Listening(Listening { socket, path: None }))
            }
            Endpoint::Connected(socket) => {
                check_unix_stream(&socket)?;
                Ok(Self::Connected(socket))
            }
        }
    }
}

impl Endpoint {
    /// The endpoint behind a descriptor: a listening socket, or a connected one.
    ///
    /// # Errors
    ///
    /// [`EndpointError::NotAUnixSocket`] for any other file.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, EndpointError> {
        check_unix_stream(&fd)?;
        let listens = rustix::net::sockopt::socket_acceptconn(&fd)
            .map_err(|error| EndpointError::NotAUnixSocket(error.into()))?;
        Ok(if listens {
            Self::Listener(fd)
        } else {
            Self::Connected(fd)
        })
    }
}

impl Listening {
    /// Takes the next client.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        Ok(rustix::net::accept_with(&self.socket, flags)?)
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the socket");
        }
    }
}

fn listen(path: PathBuf) -> Result<Listening, EndpointError> {
    // Two servers that start at once must not take each other's new socket for a stale one.
    let _lock = lock_directory(&path)?;
    remove_stale(&path)?;
    match UnixListener::bind(&path) {
        Ok(listener) => Ok(Listening {
            socket: listener.into(),
            path: Some(path),
        }),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::InvalidInput => EndpointError::PathTooLong(path),
            io::ErrorKind::AddrInUse => EndpointError::InUse(path),
            io::ErrorKind::NotFound => EndpointError::NoDirectory(path),
            _ => EndpointError::Listen { path, source: error },
        }),
    }
}

/// How long another server may take to open its socket.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// Locks the directory of `path` against other servers, until the result is dropped. Whoever may read the directory can hold the lock
/// for ever, so that it is given up after a while: without it there is a race left, and no server that cannot start.
fn lock_directory(path: &Path) -> Result<OwnedFd, EndpointError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let deadline = Instant::now() + LOCK_LIMIT;
    let directory = std::fs::File::open(directory)
        .map(OwnedFd::from)
        .inspect(|directory| {
            while rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive).is_err()
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    directory.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => EndpointError::NoDirectory(path.to_owned()),
        _ => EndpointError::Listen {
            path: path.to_owned(),
            source,
        },
    })
}

/// Removes a socket that nobody listens on: what a killed server leaves behind.
fn remove_stale(path: &Path) -> Result<(), EndpointError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(EndpointError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| EndpointError::Listen {
                path: path.to_owned(),
                source,
            })
        }
        Ok(_) | Err(_) => Err(EndpointError::InUse(path.to_owned())),
    }
}

fn check_unix_stream(fd: &OwnedFd) -> Result<(), EndpointError> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let not_a_socket = |error: rustix::io::Errno| EndpointError::NotAUnixSocket(error.into());
    let domain = sockopt::socket_domain(fd).map_err(not_a_socket)?;
    let kind = sockopt::socket_type(fd).map_err(not_a_socket)?;
    if domain == AddressFamily::UNIX && kind == SocketType::STREAM {
        return Ok(());
    }
    Err(EndpointError::NotAUnixSocket(io::Error::from(
        io::ErrorKind::InvalidInput,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).expect("bind"));
        assert!(path.exists(), "a killed server leaves its socket behind");
        listen(path).expect("replaces it");
    }

    #[test]
    fn a_socket_that_is_served_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let _listener = UnixListener::bind(&path).expect("bind");
        assert!(matches!(listen(path), Err(EndpointError::InUse(_))));
    }

    #[test]
    fn a_file_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(
            listen(file.path().to_owned()),
            Err(EndpointError::NotASocket(_))
        ));
        assert!(file.path().exists());
    }

    #[test]
    fn a_bad_path_says_what_to_do() {
        let missing = listen(PathBuf::from("/nonexistent/socket")).expect_err("no directory");
        assert!(matches!(missing, EndpointError::NoDirectory(_)));
        let long = listen(PathBuf::from(format!("/tmp/{}", "x".repeat(108)))).expect_err("too long");
        assert!(matches!(long, EndpointError::PathTooLong(_)));
    }

    #[test]
    fn only_unix_stream_sockets_are_taken_as_descriptors() {
        let file = tempfile::tempfile().expect("a file");
        Endpoint::from_fd(file.into()).expect_err("a file");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        Endpoint::from_fd(udp.into()).expect_err("another family");
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(matches!(
            Endpoint::from_fd(one.into()),
            Ok(Endpoint::Connected(_))
        ));
    }

    #[test]
    fn a_path_is_removed_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        drop(listen(path.clone()).expect("listen"));
        assert!(!path.exists());
    }
}
