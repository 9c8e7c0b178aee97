//! The one place where a device's data goes into guest memory.
//!
//! [`Space::store`] is what the promise rests on. The two others do nothing, unless a fault is injected that
//! has stores linger on their way.
#![cfg_attr(
    not(feature = "fault-injection"),
    expect(clippy::unused_self, reason = "stores do not linger")
)]

use vm_memory::VolatileSlice;

use super::space::Space;
use super::table::Piece;

impl Space {
    /// Has `write` write `piece`, and then marks it: in this order, and whatever happens to the memory
    /// meanwhile.
    #[inline]
    pub(super) fn store(&self, piece: Piece<'_>, write: impl FnOnce(VolatileSlice<'_>)) {
        #[cfg(feature = "fault-injection")]
        if let Some(fault) = self.fault.get() {
            return fault.store(&self.tracker, piece, write);
        }
        write(piece.slice());
        self.tracker.mark(piece.range());
    }

    /// A load of `piece` is to follow, which sees what was stored there.
    #[inline]
    #[cfg_attr(
        not(feature = "fault-injection"),
        expect(unused_variables, reason = "stores do not linger")
    )]
    pub(super) fn before_load(&self, piece: &Piece<'_>) {
        #[cfg(feature = "fault-injection")]
        if let Some(fault) = self.fault.get() {
            fault.land(piece.range());
        }
    }

    /// All that was stored is to be visible before what follows.
    #[inline]
    pub(super) fn drain(&self) {
        #[cfg(feature = "fault-injection")]
        if let Some(fault) = self.fault.get() {
            fault.drain();
        }
    }
}
