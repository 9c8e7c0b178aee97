//! [`Relay`]: a device's migration is its driver's, and is passed on.
//!
//! States are set in the kernel, which walks the arcs by itself, and data comes from its files. What is done here:
//!
//! - **Quiet.** In the states in which a device makes no DMA its address space is told so, and what is unmapped then is exactly as dirty as
//!   it was written. It is told after the device has stopped, and before the device is led anywhere else, to another such state
//!   included. So a device that has left its state by itself is never led back to one unseen, and whoever unmaps memory need only ask
//!   the [driver](Driver) where it is. The P2P states do not count: a device in one of them reaches memory.
//! - **Streams** are framed ([`stream`]), and RESUMING cannot be left with one that is incomplete or was refused.
//! - **Failure.** After an error the kernel says which state the device is in. In ERROR it may write on after what a client takes for its
//!   last report: the log is given up.
//! - **Resets.** A driver in the guest resets its device by config space, and the host does after errors: the device runs then, whatever
//!   state it was led to, as soon as its driver says so. It is [followed](Relay::follow) there before its client is told of the state.

use std::io;
use std::sync::Arc;

use pagetrail_tracker::Witness;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::kernel::Device;
use super::stream::{self, Loading, Saving};
use crate::device::Identity;
use crate::migration::stream::StreamError;
use crate::migration::{MigState, PrecopyInfo};
use crate::wire::feature::MIGRATION_FLAGS;

/// A device's place in an address space of the kernel's.
pub(super) trait Place: Send + Sync {
    /// The device makes no DMA until what is returned is dropped, as long as `witness` says so.
    fn quiesce(&self, witness: Arc<dyn Witness>) -> Box<dyn Send>;
}

/// What is asked where the device is.
#[derive(Debug)]
struct Driver(Arc<dyn Device>);

impl Driver {
    /// Where the kernel says that the device is. One that does not say is not to be trusted.
    fn state(&self) -> MigState {
        let state = self.0.migration_state();
        state
            .ok()
            .and_then(|state| MigState::try_from(state).ok())
            .unwrap_or(MigState::Error)
    }
}

impl Witness for Driver {
    fn is_quiet(&self) -> bool {
        !makes_dma(self.state())
    }
}

/// The migration of one device.
pub(super) struct Relay {
    device: Arc<dyn Device>,
    driver: Arc<Driver>,
    place: Arc<dyn Place>,
    identity: Identity,
    flags: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    state: MigState,
    stream: Stream,
    /// While the device makes no DMA.
    quiet: Option<Box<dyn Send>>,
}

#[derive(Debug)]
enum Stream {
    None,
    Saving(Saving),
    Loading(Loading),
}

/// Why the migration did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    /// The kernel says no.
    #[error("the device's driver says: {0}")]
    Driver(#[from] io::Error),
    /// What was written is not a stream of this device; only a reset leads out of RESUMING.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream is incomplete or was refused; only a reset leads out.
    #[error("the device has not got a state to leave RESUMING with")]
    Unfinished(#[source] StreamError),
    /// There is no such data in this state.
    #[error("there is no such migration data in {0}")]
    WrongState(MigState),
}

impl RelayError {
    /// What the client gets.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Driver(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            Self::WrongState(_) | Self::Unfinished(_) => Errno::INVAL,
            Self::Stream(error) => error.errno(),
        }
    }
}

impl Relay {
    /// The migration of a device that has `identity`, if its driver has any. It runs.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(super) fn of(
        device: &Arc<dyn Device>,
        place: Arc<dyn Place>,
        identity: Identity,
    ) -> io::Result<Option<Self>> {
        let flags = match device.migration_flags() {
            Ok(flags) => flags & MIGRATION_FLAGS,
            Err(error) => match Errno::from_io_error(&error) {
                // ENOTTY is a kernel that has never heard of it, or a device that does not migrate; EINVAL an older one's word for it.
                Some(Errno::NOTTY | Errno::INVAL) => return Ok(None),
                _ => return Err(error),
            },
        };
        Ok(Some(Self {
            device: Arc::clone(device),
            driver: Arc::new(Driver(Arc::clone(device))),
            place,
            identity,
            flags,
            inner: Mutex::new(Inner {
                state: MigState::Running,
                stream: Stream::None,
                quiet: None,
            }),
        }))
    }

    /// What the driver can do, as far as this program knows of it.
    pub(super) fn flags(&self) -> u64 {
        self.flags
    }

    /// The state that the device is in.
    pub(super) fn state(&self) -> MigState {
        self.inner.lock().state
    }

    /// Takes note of where the device has gone without being led: a reset has it run, and it may fail. Returns the state it was in and the
    /// one it is in, if they differ.
    pub(super) fn follow(&self) -> Option<(MigState, MigState)> {
        let mut inner = self.inner.lock();
        let (before, now) = (inner.state, self.driver.state());
        if before == now {
            return None;
        }
        // The driver has closed its file.
        inner.stream = Stream::None;
        self.settle(&mut inner, now);
        Some((before, now))
    }

    /// Leads the device to a state.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; [`state`](Self::state) is where the device is then.
    pub(super) fn set_state(&self, to: MigState) -> Result<(), RelayError> {
        let mut inner = self.inner.lock();
        if to == inner.state {
            return Ok(());
        }
        if let Stream::Loading(stream) = &inner.stream {
            stream.leave().map_err(RelayError::Unfinished)?;
        }
        inner.quiet = None;
        match self.device.set_migration_state(to.into()) {
            Ok(Some(file)) => {
                inner.stream = match to {
                    MigState::Resuming => Stream::Loading(Loading::new(file, self.identity.clone())),
                    _ => Stream::Saving(Saving::new(file, &self.identity)),
                };
            }
            Ok(None) if has_data(to) => {}
            Ok(None) => inner.stream = Stream::None,
            Err(error) => {
                self.settle(&mut inner, self.driver.state());
                return Err(error.into());
            }
        }
        self.settle(&mut inner, to);
        Ok(())
    }

    /// Takes note of the state that the device has reached.
    fn settle(&self, inner: &mut Inner, state: MigState) {
        inner.state = state;
        if !has_data(state) {
            inner.stream = Stream::None;
        }
        if makes_dma(state) {
            inner.quiet = None;
        } else if inner.quiet.is_none() {
            inner.quiet = Some(self.place.quiesce(Arc::clone(&self.driver) as _));
        }
    }

    /// Reads the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub(super) fn read(&self, out: &mut [u8]) -> Result<usize, RelayError> {
        let mut inner = self.inner.lock();
        let state = inner.state;
        match &mut inner.stream {
            Stream::Saving(stream) => Ok(stream.read(out, state)?),
            _ => Err(RelayError::WrongState(state)),
        }
    }

    /// Writes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// [`RelayError`], from then on until the device is reset.
    pub(super) fn write(&self, data: &[u8]) -> Result<(), RelayError> {
        let mut inner = self.inner.lock();
        let state = inner.state;
        match &mut inner.stream {
            Stream::Loading(stream) => Ok(stream.write(data)?),
            _ => Err(RelayError::WrongState(state)),
        }
    }

    /// What can be read before the device has stopped.
    ///
    /// # Errors
    ///
    /// [`RelayError`].
    pub(super) fn precopy_info(&self) -> Result<PrecopyInfo, RelayError> {
        let inner = self.inner.lock();
        match (&inner.stream, inner.state) {
            (Stream::Saving(stream), MigState::PreCopy | MigState::PreCopyP2p) => Ok(stream.precopy_info()?),
            _ => Err(RelayError::WrongState(inner.state)),
        }
    }

    /// Upper bound of the bytes from here to the end of the stream.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; `ENOTTY` if the kernel cannot say.
    pub(super) fn data_size(&self) -> Result<u64, RelayError> {
        let inner = self.inner.lock();
        let data = self.device.migration_data_size()?;
        Ok(match &inner.stream {
            Stream::Saving(stream) => stream.bytes_to_end(data),
            Stream::None | Stream::Loading(_) => stream::whole_len(&self.identity, data),
        })
    }

    /// Has `reset` reset the device, which runs afterwards.
    ///
    /// # Errors
    ///
    /// Its error; [`state`](Self::state) is where the device is then.
    pub(super) fn reset(&self, reset: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.quiet = None;
        let result = reset();
        self.settle(&mut inner, self.driver.state());
        result
    }
}

/// Whether a device in this state may reach memory.
fn makes_dma(state: MigState) -> bool {
    match state {
        MigState::Stop | MigState::StopCopy | MigState::Resuming => false,
        MigState::Error
        | MigState::Running
        | MigState::RunningP2p
        | MigState::PreCopy
        | MigState::PreCopyP2p => true,
    }
}

/// Whether the state has a file with data.
fn has_data(state: MigState) -> bool {
    match state {
        MigState::StopCopy | MigState::Resuming | MigState::PreCopy | MigState::PreCopyP2p => true,
        MigState::Error | MigState::Stop | MigState::Running | MigState::RunningP2p => false,
    }
}

#[cfg(test)]
mod tests;
