//! `INT_CAUSE`, `INT_ENABLE` and `ERROR`: what the device has to tell its driver.

use parking_lot::Mutex;

use super::spec::{Causes, ErrorCode};
use crate::guest::DmaError;
use crate::irq::Irq;

/// The causes of interrupts and the first error. A cause that is set and enabled is pending at the [`Irq`].
#[derive(Debug)]
pub(super) struct Events {
    irq: Irq,
    state: Mutex<EventState>,
}

/// The registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventState {
    /// `INT_CAUSE`.
    pub(super) causes: Causes,
    /// `INT_ENABLE`.
    pub(super) enabled: Causes,
    /// `ERROR`.
    pub(super) first_error: Option<ErrorCode>,
}

impl EventState {
    /// After reset.
    pub(super) const RESET: Self = Self {
        causes: Causes::empty(),
        enabled: Causes::empty(),
        first_error: None,
    };

    fn pending(&self) -> Causes {
        self.causes & self.enabled
    }
}

impl Events {
    pub(super) fn new(irq: Irq) -> Self {
        Self {
            irq,
            state: Mutex::new(EventState::RESET),
        }
    }

    /// The registers now.
    pub(super) fn state(&self) -> EventState {
        *self.state.lock()
    }

    /// Sets causes.
    pub(super) fn raise(&self, causes: Causes) {
        self.change(|state| state.causes |= causes);
    }

    /// Sets causes and records the error, if it is the first.
    pub(super) fn fail(&self, causes: Causes, error: ErrorCode) {
        tracing::debug!(?causes, ?error, "dma: stopped by an error");
        self.change(|state| {
            state.first_error.get_or_insert(error);
            state.causes |= causes;
        });
    }

    /// The driver writes `INT_CAUSE`.
    pub(super) fn acknowledge(&self, causes: Causes) {
        self.change(|state| state.causes -= causes);
    }

    /// The driver writes `INT_ENABLE`.
    pub(super) fn enable(&self, causes: Causes) {
        self.change(|state| state.enabled = causes);
    }

    /// Replaces the registers of a quiescent device. Signals nothing: the server does when the device runs again.
    pub(super) fn replace(&self, new: EventState) {
        let mut state = self.state.lock();
        *state = new;
        self.irq.set_pending(new.pending().bits().into());
    }

    /// Makes a change and tells the [`Irq`] about the causes that it made pending, or not pending any more.
    fn change(&self, change: impl FnOnce(&mut EventState)) {
        let mut state = self.state.lock();
        let before = state.pending();
        change(&mut state);
        let after = state.pending();
        for cause in (after - before).iter() {
            self.irq.raise(number(cause));
        }
        for cause in (before - after).iter() {
            self.irq.clear(number(cause));
        }
    }
}

/// The number of a single cause.
fn number(cause: Causes) -> u32 {
    cause.bits().trailing_zeros()
}

/// Why an access to guest memory did not happen, as the device acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server has stopped DMA: nothing is wrong, and the same access is made again when the device runs.
    Stopped,
    /// The driver is told.
    Error(ErrorCode),
}

impl From<DmaError> for Fault {
    fn from(error: DmaError) -> Self {
        match error {
            DmaError::Stopped => Self::Stopped,
            DmaError::BusMasterOff => Self::Error(ErrorCode::BusMasterOff),
            DmaError::NotMapped(_) | DmaError::Denied(_) | DmaError::Unreachable(_) => {
                Self::Error(ErrorCode::BadAddress)
            }
            DmaError::MemoryFailed(_) => Self::Error(ErrorCode::MemoryFailed),
        }
    }
}
