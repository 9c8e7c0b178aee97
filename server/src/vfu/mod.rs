//! The safe wrapper of libvfio-user: one [`Context`] for one connection.
//!
//! libvfio-user frames messages, negotiates the version, and answers for device and region information, config space and
//! register access. Every other message comes to a [`Handler`] before the library looks at it.
//!
//! The library calls back inside its own calls. A handler is therefore only ever borrowed shared, and a context has no
//! method that takes `&mut self`. No panic crosses into C: it becomes an `EIO` reply.
//!
//! Not used, and not wrapped: the library's DMA, interrupt, migration and quiesce halves.
#![allow(unsafe_code)] // The only module that calls into C.

mod callbacks;
mod capabilities;
mod context;
mod message;

pub(crate) use context::{Connection, Context};
pub(crate) use message::{Answer, Message, Reply};

use rustix::io::Errno;

use crate::device::Bar;

/// Receives what libvfio-user does not answer by itself. Called on the thread that runs the context.
pub(crate) trait Handler {
    /// A client has come. `client` is its version data (JSON), if it sent any. Returns a JSON object of capabilities to
    /// announce, if any; an error refuses the client with that errno.
    fn version(&self, client: Option<&str>) -> Result<Option<String>, Errno>;

    /// A message was received whole, and nothing has looked at it.
    fn message(&self, message: &mut Message<'_>) -> Result<Answer, Errno>;

    /// Reads a BAR. The access lies within it.
    fn read_bar(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Writes a BAR. The access lies within it.
    fn write_bar(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), Errno>;
}
