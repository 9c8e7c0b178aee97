//! What can go wrong between a client and a server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::wire::Command;

/// Result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no server behind the path.
    #[error("cannot connect to {path}; is the device server running, and is this its --socket-path?")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server answered with an error.
    #[error("{command:?}: the server answered with {}", io::Error::from_raw_os_error(.errno.cast_signed()))]
    Server {
        /// The request.
        command: Command,
        /// The server's errno; some send 0.
        errno: u32,
    },
    /// The server said something that the protocol does not allow.
    #[error("{command:?}: protocol violation: {violation}")]
    Protocol {
        /// The request.
        command: Command,
        /// What was wrong.
        violation: Violation,
    },
    /// The server did not answer in time.
    #[error("{command:?}: no answer within {after:?}")]
    Timeout {
        /// The request.
        command: Command,
        /// The time allowed.
        after: Duration,
    },
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The errno the server answered with, if that is what happened.
    pub fn errno(&self) -> Option<u32> {
        match self {
            Self::Server { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => {
                matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
                )
            }
            _ => false,
        }
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// A departure from the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A header announces an impossible size.
    #[error("a message of {0} bytes")]
    Size(u32),
    /// A reply to something that was not asked.
    #[error("a reply with id {got}, expected {expected}")]
    Id {
        /// Id of the request.
        expected: u16,
        /// Id of the reply.
        got: u16,
    },
    /// A reply to another command.
    #[error("a reply to command {got}")]
    Command {
        /// Number of the command.
        got: u16,
    },
    /// A reply that is too short.
    #[error("a payload of {got} bytes, expected at least {expected}")]
    Short {
        /// Bytes needed.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A field has a value it must not have.
    #[error("{field} is {value:#x}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The document of the handshake cannot be read.
    #[error("the capabilities cannot be read: {0}")]
    Capabilities(String),
    /// A file descriptor is missing.
    #[error("a file descriptor is missing")]
    NoFd,
    /// Bits are set beyond the range that was asked for.
    #[error("the bitmap has bits outside of the range")]
    BitsOutside,
}
