//! A device's migration: its state, and the stream that the state implies.

use rustix::io::Errno;

use super::state::{Arc, BadArc, MigState, next_arc};
use super::stream::{Incoming, Left, MAX_STATE_LEN, Outgoing, Progress, StreamError};
use crate::device::{Identity, RestoreError, SaveError};

/// Why a target could not be quiesced or run.
pub type TargetError = Box<dyn std::error::Error + Send + Sync>;

/// What the arcs act on: a device with its way to guest memory and its interrupts.
///
/// [`MigState`] says when the device's registers may be written ([`MigState::accepts_writes`]); that needs no call.
pub trait Target {
    /// Kind, version and configuration of the device.
    fn identity(&self) -> Identity;

    /// Upper bound of what [`save`](Self::save) can return for this device, in bytes.
    ///
    /// Clients plan the downtime with it before the device has stopped: a loose bound makes a migration converge late or never.
    fn max_state_len(&self) -> usize;

    /// Ends the device's work: after this it touches no guest memory and raises no cause. Idempotent.
    ///
    /// # Errors
    ///
    /// When that took too long. The device may still write memory, so it is in [`MigState::Error`] from then on.
    fn quiesce(&self) -> Result<(), TargetError>;

    /// Lets the quiescent device work.
    ///
    /// # Errors
    ///
    /// The device is still quiescent.
    fn run(&self) -> Result<(), TargetError>;

    /// The whole state of the quiescent device.
    ///
    /// # Errors
    ///
    /// The device's own.
    fn save(&self) -> Result<Vec<u8>, SaveError>;

    /// Checks `state` whole, and only then takes it over.
    ///
    /// # Errors
    ///
    /// The device's own; the quiescent device is as it was.
    fn restore(&self, state: &[u8]) -> Result<(), RestoreError>;

    /// The device runs for the first time with a state that it restored.
    fn resumed(&self);
}

/// The migration of one device.
///
/// The stream follows from the state: a state in the saving group (PRE_COPY, PRE_COPY_P2P, STOP_COPY) has one to read, RESUMING
/// one to write, the others none. Pre-copy that is given up and begun again is a new stream.
#[derive(Debug)]
pub struct Migration {
    state: MigState,
    stream: Stream,
    origin: Origin,
}

/// Where the device's state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From its own work.
    Run,
    /// From a stream, and the device has not run since.
    Restored,
}

#[derive(Debug)]
enum Stream {
    None,
    Saving(Outgoing),
    Loading(Incoming),
}

/// `struct vfio_precopy_info`, as far as it says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrecopyInfo {
    /// Bytes that can be read now.
    pub initial_bytes: u64,
    /// Bytes that have changed since they were read. Always 0: what is read in pre-copy does not change.
    pub dirty_bytes: u64,
}

/// Why a state was not reached. [`Migration::state`] says which one was.
#[derive(Debug, thiserror::Error)]
pub enum SetStateError {
    /// There is no way; the state is as before.
    #[error(transparent)]
    BadArc(#[from] BadArc),
    /// The device did not stop; it is in [`MigState::Error`].
    #[error("the device did not become quiescent")]
    Quiesce(#[source] TargetError),
    /// The device did not start; it is quiescent.
    #[error("the device could not be run")]
    Run(#[source] TargetError),
    /// The state could not be saved; the device is in STOP or PRE_COPY_P2P, and can run again.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The stream is incomplete or was refused; the device is in RESUMING, and a reset leads out.
    #[error("the device has not got a state to leave RESUMING with")]
    Stream(#[from] StreamError),
}

/// Why migration data was refused.
#[derive(Debug, thiserror::Error)]
pub enum MigDataError {
    /// There is no such data in this state.
    #[error("there is no such migration data in {0}")]
    WrongState(MigState),
    /// The stream written is not valid; the device is in RESUMING, without a new state, and a reset leads out.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl SetStateError {
    /// What the client is told.
    pub fn errno(&self) -> Errno {
        match self {
            Self::BadArc(_) | Self::Stream(_) => Errno::INVAL,
            Self::Quiesce(_) | Self::Run(_) | Self::Save(_) => Errno::IO,
        }
    }
}

impl MigDataError {
    /// What the client is told: `EINVAL` where it did the wrong thing, `EBADMSG` where the stream was damaged on its way.
    pub fn errno(&self) -> Errno {
        match self {
            Self::WrongState(_) => Errno::INVAL,
            Self::Stream(error) => error.errno(),
        }
    }
}

impl Default for Migration {
    fn default() -> Self {
        Self::new()
    }
}

impl Migration {
    /// The migration of a device that runs.
    pub fn new() -> Self {
        Self {
            state: MigState::Running,
            stream: Stream::None,
            origin: Origin::Run,
        }
    }

    /// The state the device is in.
    pub fn state(&self) -> MigState {
        self.state
    }

    /// Whether only a reset helps.
    pub fn is_failed(&self) -> bool {
        self.state == MigState::Error
    }

    /// Gives the device up until it is reset.
    pub fn fail(&mut self) {
        *self = Self {
            state: MigState::Error,
            stream: Stream::None,
            origin: Origin::Run,
        };
    }

    /// The device was reset, and runs. A stream half read or half written is gone.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Leads the device to the state `to`, arc by arc. Asking for the state it is in does nothing.
    ///
    /// RESUMING cannot be left with a stream that is incomplete or was refused: the device would run without the state that it is
    /// believed to have. It can be left when not one byte was written, because then nothing was migrated: a client that gives up before
    /// it begins finds the device as it was.
    ///
    /// # Errors
    ///
    /// [`SetStateError`]; the device is then in the nearest state before the arc that failed, or in [`MigState::Error`].
    pub fn set_state(&mut self, to: MigState, target: &impl Target) -> Result<(), SetStateError> {
        while let Some(arc) = next_arc(self.state, to)? {
            self.take(arc, target)?;
            self.state = arc.to();
        }
        Ok(())
    }

    /// What the arc does. On an error the state before it still holds, or is [`MigState::Error`].
    fn take(&mut self, arc: Arc, target: &impl Target) -> Result<(), SetStateError> {
        match arc {
            Arc::RunningToRunningP2p | Arc::PreCopyToPreCopyP2p => self.quiesce(target)?,
            Arc::RunningP2pToRunning | Arc::PreCopyP2pToPreCopy => self.run(target)?,
            // The device is quiescent already, and the state alone says whether its registers may be written.
            Arc::RunningP2pToStop | Arc::StopToRunningP2p => {}
            Arc::RunningToPreCopy | Arc::RunningP2pToPreCopyP2p => {
                self.stream = Stream::Saving(Outgoing::new(&target.identity()));
            }
            Arc::PreCopyToRunning | Arc::PreCopyP2pToRunningP2p | Arc::StopCopyToStop => {
                self.stream = Stream::None;
            }
            Arc::PreCopyP2pToStopCopy | Arc::StopToStopCopy => self.save(target)?,
            Arc::StopToResuming => self.stream = Stream::Loading(Incoming::new(target.identity())),
            Arc::ResumingToStop => self.leave_resuming()?,
        }
        Ok(())
    }

    fn quiesce(&mut self, target: &impl Target) -> Result<(), SetStateError> {
        target.quiesce().map_err(|error| {
            self.fail();
            SetStateError::Quiesce(error)
        })
    }

    /// Completes the stream that pre-copy began, or one that begins here.
    fn save(&mut self, target: &impl Target) -> Result<(), SetStateError> {
        let state = target.save()?;
        if let Stream::Saving(stream) = &mut self.stream {
            stream.finish(&state)?;
            return Ok(());
        }
        let mut stream = Outgoing::new(&target.identity());
        stream.finish(&state)?;
        self.stream = Stream::Saving(stream);
        Ok(())
    }

    fn leave_resuming(&mut self) -> Result<(), SetStateError> {
        if let Stream::Loading(stream) = &self.stream
            && stream.leave()? == Left::Complete
        {
            self.origin = Origin::Restored;
        }
        self.stream = Stream::None;
        Ok(())
    }

    /// A client may load its interrupt controllers after the device has left RESUMING, and would lose what was signalled then.
    fn run(&mut self, target: &impl Target) -> Result<(), SetStateError> {
        target.run().map_err(SetStateError::Run)?;
        if self.origin == Origin::Restored {
            self.origin = Origin::Run;
            target.resumed();
        }
        Ok(())
    }

    /// Reads the next bytes of the stream, at most as many as `out` takes. 0 means in pre-copy that there is nothing at present,
    /// and in STOP_COPY that the stream is complete.
    ///
    /// # Errors
    ///
    /// [`MigDataError::WrongState`] outside of the saving group.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, MigDataError> {
        let Stream::Saving(stream) = &mut self.stream else {
            return Err(MigDataError::WrongState(self.state));
        };
        Ok(stream.read(out))
    }

    /// Writes the next bytes of the stream. Those that complete its end record restore the device.
    ///
    /// # Errors
    ///
    /// [`MigDataError::WrongState`] outside of RESUMING. [`MigDataError::Stream`] when the stream or the device's state in it is not
    /// valid, from then on until the device is reset.
    pub fn write(&mut self, bytes: &[u8], target: &impl Target) -> Result<(), MigDataError> {
        let Stream::Loading(stream) = &mut self.stream else {
            return Err(MigDataError::WrongState(self.state));
        };
        if let Progress::Complete(state) = stream.push(bytes)? {
            target
                .restore(&state)
                .map_err(|error| stream.fail(error.into()))?;
        }
        Ok(())
    }

    /// `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`: upper bound of the bytes from here to the end of the stream.
    pub fn data_size(&self, target: &impl Target) -> u64 {
        let state_len = target.max_state_len().min(MAX_STATE_LEN);
        match &self.stream {
            Stream::Saving(stream) if self.state == MigState::StopCopy => stream.remaining(),
            Stream::Saving(stream) => stream.remaining() + Outgoing::bytes_to_finish(state_len),
            Stream::None | Stream::Loading(_) => Outgoing::whole_len(&target.identity(), state_len),
        }
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO`.
    ///
    /// # Errors
    ///
    /// [`MigDataError::WrongState`] outside of PRE_COPY and PRE_COPY_P2P.
    pub fn precopy_info(&self) -> Result<PrecopyInfo, MigDataError> {
        match (&self.stream, self.state) {
            (Stream::Saving(stream), MigState::PreCopy | MigState::PreCopyP2p) => Ok(PrecopyInfo {
                initial_bytes: stream.remaining(),
                dirty_bytes: 0,
            }),
            _ => Err(MigDataError::WrongState(self.state)),
        }
    }
}

#[cfg(test)]
mod tests;
