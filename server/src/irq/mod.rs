//! Interrupts: causes on the device's side, eventfds on the client's.
//!
//! A device raises and clears numbered *causes* through [`Irq`] and knows nothing else. The session owns the
//! [`Interrupts`] of its connection and hands SET_IRQS and GET_IRQ_INFO to them. In between:
//!
//! - INTx is a level: asserted while any cause is pending. Its eventfd is signalled once, and again when the client
//!   unmasks the pin and a cause is still pending.
//! - MSI and MSI-X are edges: a cause that becomes pending signals its vector. Cause `n` has vector `n`, or 0 when fewer
//!   are enabled.
//! - One of the three is enabled at a time. An eventfd connected while causes are pending is signalled for them.
//! - A cause is pending until the device clears it, and is signalled again after a migration
//!   ([`Interrupts::resignal`]): what was in an eventfd when the VM moved is lost.
//!
//! SET_IRQS follows the kernel's vfio-pci, except that MSI and MSI-X vectors can be masked, and that a vector can be
//! connected at any time without disabling the index first (`VFIO_IRQ_INFO_NORESIZE` is never set). The error and
//! request interrupts can be connected and tested; no emulated device raises them.
//!
//! Not here: config space and the MSI-X table, which the client keeps; the wire format, which is the session's.

mod command;
mod eventfd;
mod interrupts;
mod intx;
mod lines;
mod message;
mod request;
mod resample;
pub mod testing;
#[cfg(test)]
mod tests;
mod watchdog;

use std::sync::Arc;

pub use interrupts::Interrupts;
pub(crate) use request::INFO_NORESIZE;
pub use request::{IrqAction, IrqData, IrqError, IrqIndex, IrqInfo, SetIrqs};

use lines::Lines;

/// A device's interrupt causes. A cause is pending from [`raise`](Self::raise) until [`clear`](Self::clear).
#[derive(Clone, Debug)]
pub struct Irq(Arc<Lines>);

impl Irq {
    /// Makes cause `cause` (0 to 63) pending. Signals its vector when it was not.
    pub fn raise(&self, cause: u32) {
        self.0.raise(cause);
    }

    /// The driver acknowledged cause `cause` (0 to 63), or disabled it.
    pub fn clear(&self, cause: u32) {
        self.0.clear(cause);
    }

    /// The pending causes, bit `n` for cause `n`.
    pub fn pending(&self) -> u64 {
        self.0.pending()
    }

    /// Replaces the pending causes without signalling (reset: 0; restore: the saved ones). The server signals what is
    /// pending when the device first runs after RESUMING.
    pub fn set_pending(&self, causes: u64) {
        self.0.set_pending(causes);
    }
}
