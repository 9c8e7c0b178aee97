//! One connection to one vfio-user server.
//!
//! [`Client`] is what the rest of the crate uses: typed requests, each with a deadline and a typed error. Below it,
//! [`Connection`] moves messages and file descriptors and keeps the stream in step; hostile tests use it directly.
//!
//! A client is single-threaded: one request is under way at a time. Requests of the *server* (DMA by messages) are
//! served while a reply is awaited, see [`ServerRequests`].

mod bitmap;
mod connection;
mod error;
mod migration;
mod requests;
mod session;

pub use bitmap::DirtyReport;
pub use connection::{Connection, Deadline, Message};
pub use error::{Error, Result, Violation};
pub use migration::LoggingRange;
pub use requests::{IrqAction, RegionDescription, Unmapped};
pub use session::{Client, ServerRequests};
