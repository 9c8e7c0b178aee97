//! The causes of a device and the lines that tell the client of them: what the device's threads and the session share.
//!
//! Causes are one atomic word, so that raising a cause that is pending, clearing and asking take no lock. A cause is set
//! before the lock is taken, and an eventfd is connected under the lock before the causes are looked at: whoever comes
//! second sees both, and a cause that nobody was told of does not exist.
//!
//! Signals are sent under the lock: once SET_IRQS has taken an eventfd away, it is not signalled again.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::eventfd::Eventfd;
use super::intx::Intx;
use super::message::Messages;
use super::{IrqAction, IrqIndex};

/// The causes, and where they are signalled.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: AtomicU64,
    mode: Mutex<Mode>,
}

/// Which kind of interrupt is enabled: one at a time, as in PCI.
#[derive(Debug, Default)]
pub(super) enum Mode {
    /// None.
    #[default]
    Off,
    /// The pin.
    Intx(Intx),
    /// MSI vectors.
    Msi(Messages),
    /// MSI-X vectors.
    Msix(Messages),
}

impl Lines {
    /// The pending causes, bit `n` for cause `n`.
    pub(super) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    /// Replaces the pending causes and signals nothing.
    pub(super) fn set_pending(&self, causes: u64) {
        self.pending.store(causes, Ordering::Release);
    }

    /// Makes `cause` pending, and signals it when it was not.
    pub(super) fn raise(&self, cause: u32) {
        let Some(bit) = bit(cause) else { return };
        if self.pending.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return;
        }
        match &mut *self.mode() {
            Mode::Off => {}
            Mode::Intx(intx) => intx.update(self.pending()),
            Mode::Msi(messages) | Mode::Msix(messages) => messages.raise(cause),
        }
    }

    /// Takes `cause` back.
    pub(super) fn clear(&self, cause: u32) {
        let Some(bit) = bit(cause) else { return };
        self.pending.fetch_and(!bit, Ordering::AcqRel);
    }

    /// Signals every pending cause once more.
    pub(super) fn resignal(&self) {
        let mut mode = self.mode();
        let pending = self.pending();
        match &mut *mode {
            Mode::Off => {}
            Mode::Intx(intx) => intx.resignal(pending),
            Mode::Msi(messages) | Mode::Msix(messages) => messages.resignal(pending),
        }
    }

    /// Unmasks the pin, if it is what is enabled.
    pub(super) fn unmask_intx(&self) {
        if let Mode::Intx(intx) = &mut *self.mode() {
            intx.unmask(self.pending());
        }
    }

    /// What is enabled. Causes read while this is held are those that it has been told of, and newer ones.
    pub(super) fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock()
    }
}

impl Mode {
    /// The index that is enabled.
    pub(super) fn index(&self) -> Option<IrqIndex> {
        match self {
            Self::Off => None,
            Self::Intx(_) => Some(IrqIndex::Intx),
            Self::Msi(_) => Some(IrqIndex::Msi),
            Self::Msix(_) => Some(IrqIndex::Msix),
        }
    }

    /// Sets the eventfds of the interrupts from `start`, or takes them away.
    pub(super) fn connect(&mut self, start: usize, mut triggers: Vec<Option<Eventfd>>, pending: u64) {
        match self {
            Self::Off => {}
            Self::Intx(intx) => intx.connect(triggers.pop().flatten(), pending),
            Self::Msi(messages) | Self::Msix(messages) => messages.connect(start, triggers, pending),
        }
    }

    /// Masks, unmasks or signals interrupt `number`, one that the index has.
    pub(super) fn act(&mut self, action: IrqAction, number: usize, pending: u64) {
        match self {
            Self::Off => {}
            Self::Intx(intx) => match action {
                IrqAction::Mask => intx.mask(),
                IrqAction::Unmask => intx.unmask(pending),
                IrqAction::Trigger => intx.loop_back(),
            },
            Self::Msi(messages) | Self::Msix(messages) => match action {
                IrqAction::Mask => messages.mask(number),
                IrqAction::Unmask => messages.unmask(number, pending),
                IrqAction::Trigger => messages.loop_back(number),
            },
        }
    }
}

fn bit(cause: u32) -> Option<u64> {
    let bit = 1u64.checked_shl(cause);
    debug_assert!(bit.is_some(), "a device has causes 0 to 63, not {cause}");
    bit
}
