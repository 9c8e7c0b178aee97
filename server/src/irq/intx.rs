//! The INTx pin: a level, told to the client by an eventfd that masks itself.

use super::eventfd::Eventfd;

/// An enabled pin. It is asserted while any cause is pending.
#[derive(Debug, Default)]
pub(super) struct Intx {
    trigger: Option<Eventfd>,
    gate: Gate,
}

/// Whether the client is told of an assertion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Gate {
    /// It is.
    #[default]
    Open,
    /// It was, and has not unmasked the pin since.
    AutoMasked,
    /// It asked not to be.
    Masked,
}

impl Intx {
    /// Sets the eventfd, or takes it away. A new one does not unmask the pin.
    pub(super) fn connect(&mut self, trigger: Option<Eventfd>, pending: u64) {
        self.trigger = trigger;
        self.update(pending);
    }

    /// Tells the client if the pin is asserted and not masked.
    pub(super) fn update(&mut self, pending: u64) {
        let Some(trigger) = &self.trigger else { return };
        if pending == 0 || self.gate != Gate::Open {
            return;
        }
        self.gate = Gate::AutoMasked;
        trigger.signal();
    }

    /// Tells the client once more. One that restored a VM on this connection has forgotten what it was told, and would
    /// never unmask.
    pub(super) fn resignal(&mut self, pending: u64) {
        if self.gate == Gate::AutoMasked {
            self.gate = Gate::Open;
        }
        self.update(pending);
    }

    /// The client asks for silence.
    pub(super) fn mask(&mut self) {
        self.gate = Gate::Masked;
    }

    /// The client has handled the interrupt: tells it again if the pin is still asserted.
    pub(super) fn unmask(&mut self, pending: u64) {
        self.gate = Gate::Open;
        self.update(pending);
    }

    /// Signals whatever the pin's state, for a client that tests its eventfd.
    pub(super) fn loop_back(&self) {
        if let Some(trigger) = &self.trigger {
            trigger.signal();
        }
    }
}
