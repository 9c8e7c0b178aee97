//! The states of a migrating device, and the arcs between them.
//!
//! The table is that of the kernel's `vfio_mig_get_next_state()` (`drivers/vfio/vfio_main.c`) for a device with
//! `STOP_COPY | P2P | PRE_COPY`. A client may ask for any state from any other; the way there is a walk over the few
//! single-step arcs that a device has to implement.

use std::fmt;

/// `enum vfio_device_mig_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MigState {
    /// Nothing is known about the device; only a reset leads out.
    Error,
    /// The device is still: no DMA, no interrupts, no register writes.
    Stop,
    /// The device works.
    Running,
    /// The device is still, and its whole state can be read.
    StopCopy,
    /// The device is still, and takes in a state.
    Resuming,
    /// The device starts no DMA; others may write its registers.
    RunningP2p,
    /// As [`Running`](Self::Running), and the part of the state that is known early can be read.
    PreCopy,
    /// As [`RunningP2p`](Self::RunningP2p), and the part of the state that is known early can be read.
    PreCopyP2p,
}

impl MigState {
    /// Every state, in the order of the kernel's numbers, which start at 0.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// Whether register writes reach the device. In the other states they would be lost, or would change a state that has
    /// been saved already.
    pub fn accepts_writes(self) -> bool {
        match self {
            Self::Running | Self::RunningP2p | Self::PreCopy | Self::PreCopyP2p => true,
            Self::Error | Self::Stop | Self::StopCopy | Self::Resuming => false,
        }
    }
}

/// The kernel's number.
impl From<MigState> for u32 {
    fn from(state: MigState) -> Self {
        match state {
            MigState::Error => 0,
            MigState::Stop => 1,
            MigState::Running => 2,
            MigState::StopCopy => 3,
            MigState::Resuming => 4,
            MigState::RunningP2p => 5,
            MigState::PreCopy => 6,
            MigState::PreCopyP2p => 7,
        }
    }
}

impl TryFrom<u32> for MigState {
    type Error = UnknownState;

    fn try_from(number: u32) -> Result<Self, UnknownState> {
        let state = usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index));
        state.copied().ok_or(UnknownState(number))
    }
}

impl fmt::Display for MigState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        })
    }
}

/// A number that is no migration state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a migration state")]
pub struct UnknownState(pub u32);

/// An arc that a device implements in a single step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arc {
    /// The device finishes or suspends its work, and starts no more.
    RunningToRunningP2p,
    /// The device goes on with its work.
    RunningP2pToRunning,
    /// From here on the device takes no register writes either.
    RunningP2pToStop,
    /// The device takes register writes again.
    StopToRunningP2p,
    /// A stream begins with what is known early, while the device works.
    RunningToPreCopy,
    /// The same, while the device is quiescent.
    RunningP2pToPreCopyP2p,
    /// As [`RunningToRunningP2p`](Self::RunningToRunningP2p); the stream goes on.
    PreCopyToPreCopyP2p,
    /// As [`RunningP2pToRunning`](Self::RunningP2pToRunning); the stream goes on.
    PreCopyP2pToPreCopy,
    /// The migration is given up: the stream is dropped, and the device works all the while.
    PreCopyToRunning,
    /// The migration is given up: the stream is dropped, and the device stays quiescent.
    PreCopyP2pToRunningP2p,
    /// The state is saved, and the stream that began in pre-copy goes on to its end.
    PreCopyP2pToStopCopy,
    /// The state is saved, into a stream of its own.
    StopToStopCopy,
    /// The stream is dropped, whether it was read to its end or not.
    StopCopyToStop,
    /// The device waits for a stream.
    StopToResuming,
    /// The device has the state that the stream carried.
    ResumingToStop,
}

impl Arc {
    /// The state that the arc leads to.
    pub fn to(self) -> MigState {
        match self {
            Self::RunningToRunningP2p | Self::StopToRunningP2p | Self::PreCopyP2pToRunningP2p => {
                MigState::RunningP2p
            }
            Self::RunningP2pToRunning | Self::PreCopyToRunning => MigState::Running,
            Self::RunningP2pToStop | Self::StopCopyToStop | Self::ResumingToStop => MigState::Stop,
            Self::RunningToPreCopy | Self::PreCopyP2pToPreCopy => MigState::PreCopy,
            Self::RunningP2pToPreCopyP2p | Self::PreCopyToPreCopyP2p => MigState::PreCopyP2p,
            Self::PreCopyP2pToStopCopy | Self::StopToStopCopy => MigState::StopCopy,
            Self::StopToResuming => MigState::Resuming,
        }
    }
}

/// Two states without a way from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no way from {from} to {to}")]
pub struct BadArc {
    /// The state the device is in.
    pub from: MigState,
    /// The state asked for.
    pub to: MigState,
}

/// The first arc on the way between two states; `None` when they are the same.
///
/// # Errors
///
/// [`BadArc`] from or to [`MigState::Error`], and from STOP_COPY back to pre-copy: that would be a new stream, and a client
/// that wants one says so by going through RUNNING.
pub fn next_arc(from: MigState, to: MigState) -> Result<Option<Arc>, BadArc> {
    use MigState as S;
    let arc = match (from, to) {
        (S::Error, _) | (_, S::Error) | (S::StopCopy, S::PreCopy | S::PreCopyP2p) => {
            return Err(BadArc { from, to });
        }
        _ if from == to => return Ok(None),

        (S::Running, S::PreCopy) => Arc::RunningToPreCopy,
        (S::Running, _) => Arc::RunningToRunningP2p,

        (S::RunningP2p, S::Running | S::PreCopy) => Arc::RunningP2pToRunning,
        (S::RunningP2p, S::PreCopyP2p) => Arc::RunningP2pToPreCopyP2p,
        (S::RunningP2p, _) => Arc::RunningP2pToStop,

        (S::Stop, S::StopCopy) => Arc::StopToStopCopy,
        (S::Stop, S::Resuming) => Arc::StopToResuming,
        (S::Stop, _) => Arc::StopToRunningP2p,

        (S::PreCopy, S::PreCopyP2p | S::StopCopy) => Arc::PreCopyToPreCopyP2p,
        (S::PreCopy, _) => Arc::PreCopyToRunning,

        (S::PreCopyP2p, S::PreCopy) => Arc::PreCopyP2pToPreCopy,
        (S::PreCopyP2p, S::StopCopy) => Arc::PreCopyP2pToStopCopy,
        (S::PreCopyP2p, _) => Arc::PreCopyP2pToRunningP2p,

        (S::StopCopy, _) => Arc::StopCopyToStop,
        (S::Resuming, _) => Arc::ResumingToStop,
    };
    Ok(Some(arc))
}

#[cfg(test)]
mod tests;
