//! What a migration and a reset do to the device.

use std::time::Instant;

use rustix::io::Errno;

use super::Session;
use crate::device::{Identity, RestoreError, SaveError};
use crate::migration::{Target, TargetError};

impl Target for Session {
    /// Stops the device, and then its way to memory: after this no DMA is under way, whatever the device does.
    fn quiesce(&self) -> Result<(), TargetError> {
        let stopped = self.stop_work(Self::quiesce_deadline());
        stopped.inspect_err(|_| self.log.give_up())
    }

    fn run(&self) -> Result<(), TargetError> {
        self.space.resume();
        self.device.run();
        Ok(())
    }

    fn identity(&self) -> Identity {
        self.device.identity()
    }

    fn max_state_len(&self) -> usize {
        self.device.max_state_len()
    }

    fn save(&self) -> Result<Vec<u8>, SaveError> {
        self.device.save()
    }

    fn restore(&self, state: &[u8]) -> Result<(), RestoreError> {
        self.device.restore(state)
    }

    /// An eventfd that was signalled on the source, and not seen there, is lost: signal what is pending once more.
    fn resumed(&self) {
        self.interrupts.resignal();
    }
}

impl Session {
    fn stop_work(&self, deadline: Instant) -> Result<(), TargetError> {
        self.device.quiesce(deadline)?;
        self.space.suspend(deadline)?;
        Ok(())
    }

    /// Resets the device, in any state. Mappings, eventfds, config space and the DMA log stay.
    pub(super) fn reset(&self) -> Result<(), Errno> {
        let mut migration = self.migration.lock();
        if let Err(error) = Target::quiesce(self) {
            tracing::error!(device = self.name, %error, "the device could not be reset");
            migration.fail();
            return Err(Errno::IO);
        }
        self.device.reset();
        migration.reset();
        self.space.resume();
        self.device.run();
        tracing::info!(device = self.name, "device reset");
        Ok(())
    }

    /// Gives the device up until it is reset: its state and its log no longer hold.
    pub(super) fn fail(&self, why: &str) {
        tracing::error!(
            device = self.name,
            why,
            "the device failed: it must be reset, and a migration must not go on"
        );
        self.migration.lock().fail();
        self.log.give_up();
    }

    /// A failed device may write memory after it was last asked for dirty pages, so its log is not to be trusted.
    pub(super) fn refuse_if_failed(&self) -> Result<(), Errno> {
        if self.migration.lock().is_failed() {
            Err(Errno::IO)
        } else {
            Ok(())
        }
    }
}
