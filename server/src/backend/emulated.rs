//! A device of this process: its memory, its interrupts and its migration are this crate's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::Attachment;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Backend;
use crate::device::{Bar, Device, Identity, IoError, RestoreError, SaveError};
use crate::guest::{DmaSpace, MapRequest};
use crate::irq::{Interrupts, IrqInfo, SetIrqs};
use crate::migration::{MigState, Migration, PrecopyInfo, Target, TargetError};
use crate::vfu::{Answer, Message};
use crate::wire::feature::MIGRATION_FLAGS;
use crate::wire::{self, command, region};

/// How long work in flight may take to stop. Shorter than the 5 s after which QEMU gives a message up.
const QUIESCE_LIMIT: Duration = Duration::from_secs(3);

/// Bytes of conventional config space.
const PCI_CONFIG_SIZE: u64 = 256;
/// Offset and bits of the PCI command register.
const PCI_COMMAND: u64 = 4;
const PCI_COMMAND_MASTER: u8 = 1 << 2;

/// An emulated device and what its connection has of it.
pub(crate) struct Emulated {
    parts: Parts,
    migration: Mutex<Migration>,
}

/// What an emulated device is put together of.
pub(crate) struct Parts {
    /// Name, for logs.
    pub(crate) name: String,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) space: DmaSpace,
    pub(crate) interrupts: Interrupts,
    pub(crate) log: Arc<Attachment>,
}

impl Emulated {
    /// Lets the device work.
    pub(crate) fn start(parts: Parts) -> Self {
        parts.device.run();
        Self {
            parts,
            migration: Mutex::new(Migration::new()),
        }
    }

    fn quiesce_deadline() -> Instant {
        Instant::now() + QUIESCE_LIMIT
    }

    fn name(&self) -> &str {
        &self.parts.name
    }

    fn stop_work(&self, deadline: Instant) -> Result<(), TargetError> {
        self.parts.device.quiesce(deadline)?;
        self.parts.space.suspend(deadline)?;
        Ok(())
    }

    /// Gives the device up until it is reset: its state and its log no longer hold.
    fn fail(&self, why: &str) {
        tracing::error!(
            device = self.name(),
            why,
            "the device failed: it must be reset, and a migration must not go on"
        );
        self.migration.lock().fail();
        self.parts.log.give_up();
    }

    fn refused_access(&self, error: IoError) -> Errno {
        tracing::debug!(device = self.name(), %error, "refused a register access");
        Errno::INVAL
    }

    /// Config space is libvfio-user's, but whether the device may master the bus is for its DMA to know. Follows every write that
    /// the library lets reach the command register's low byte, and no other.
    fn follow_command_register(&self, payload: &[u8]) {
        let Ok((access, data)) = wire::split::<region::RegionAccess>(payload) else {
            return;
        };
        if access.region != region::CONFIG_REGION || access.count as usize != data.len() {
            return;
        }
        // The library takes a write apart by registers and ends at the first that it refuses: one that begins before the command
        // register ends at the IDs.
        if access.offset != PCI_COMMAND || data.len() as u64 > PCI_CONFIG_SIZE - PCI_COMMAND {
            return;
        }
        if let Some(low_byte) = data.first() {
            self.parts
                .space
                .set_bus_master((low_byte & PCI_COMMAND_MASTER != 0).into());
        }
    }
}

impl Backend for Emulated {
    fn map(&self, request: MapRequest) -> Result<(), Errno> {
        self.parts.space.map(request).map_err(|error| {
            tracing::warn!(device = self.name(), %error, "refused to map guest memory");
            error.errno()
        })
    }

    fn unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        let unmapped = self.parts.space.unmap(iova, size, Self::quiesce_deadline());
        unmapped.map_err(|error| {
            tracing::warn!(device = self.name(), %error, "refused to unmap guest memory");
            if error.is_timeout() {
                self.fail("memory that was to be unmapped is still in use");
            }
            error.errno()
        })
    }

    fn unmap_all(&self) -> Result<(), Errno> {
        let unmapped = self.parts.space.unmap_all(Self::quiesce_deadline());
        unmapped.map_err(|error| {
            tracing::warn!(device = self.name(), %error, "refused to unmap guest memory");
            self.fail("memory that was to be unmapped is still in use");
            error.errno()
        })
    }

    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        self.parts.interrupts.info(index).ok_or(Errno::INVAL)
    }

    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno> {
        self.parts.interrupts.set(request).map_err(|error| {
            tracing::debug!(device = self.name(), %error, "refused to set interrupts");
            error.errno()
        })
    }

    fn migration_flags(&self) -> Result<u64, Errno> {
        Ok(MIGRATION_FLAGS)
    }

    fn migration_state(&self) -> Result<MigState, Errno> {
        Ok(self.migration.lock().state())
    }

    fn set_migration_state(&self, to: MigState) -> Result<(), Errno> {
        let mut migration = self.migration.lock();
        let from = migration.state();
        migration.set_state(to, self).map_err(|error| {
            tracing::warn!(device = self.name(), %from, %to, %error, "the migration state did not change as asked");
            error.errno()
        })?;
        tracing::info!(device = self.name(), %from, %to, "migration state");
        Ok(())
    }

    fn migration_data_size(&self) -> Result<u64, Errno> {
        Ok(self.migration.lock().data_size(self))
    }

    fn read_migration_data(&self, out: &mut [u8]) -> Result<usize, Errno> {
        self.migration.lock().read(out).map_err(|error| {
            tracing::warn!(device = self.name(), %error, "refused to read migration data");
            error.errno()
        })
    }

    fn write_migration_data(&self, data: &[u8]) -> Result<(), Errno> {
        self.migration.lock().write(data, self).map_err(|error| {
            tracing::error!(device = self.name(), %error, "the migration stream was refused");
            error.errno()
        })
    }

    fn precopy_info(&self) -> Result<PrecopyInfo, Errno> {
        let info = self.migration.lock().precopy_info();
        info.map_err(|error| error.errno())
    }

    fn reset(&self) -> Result<(), Errno> {
        let mut migration = self.migration.lock();
        if let Err(error) = Target::quiesce(self) {
            tracing::error!(device = self.name(), %error, "the device could not be reset");
            migration.fail();
            return Err(Errno::IO);
        }
        self.parts.device.reset();
        migration.reset();
        self.parts.space.resume();
        self.parts.device.run();
        tracing::info!(device = self.name(), "device reset");
        Ok(())
    }

    fn is_failed(&self) -> bool {
        self.migration.lock().is_failed()
    }

    fn other(&self, message: &Message<'_>) -> Result<Answer, Errno> {
        if message.command == command::REGION_WRITE {
            self.follow_command_register(message.payload);
        }
        Ok(Answer::Pass)
    }

    fn read_bar(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let read = self.parts.device.read(bar, offset, data);
        read.map_err(|error| self.refused_access(error))
    }

    fn write_bar(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), Errno> {
        // A write to a device whose state is being saved, loaded or kept would be lost or would change what was saved.
        if !self.migration.lock().state().accepts_writes() {
            tracing::debug!(
                device = self.name(),
                ?bar,
                offset,
                "refused a register write while the device is stopped"
            );
            return Err(Errno::BUSY);
        }
        let written = self.parts.device.write(bar, offset, data);
        written.map_err(|error| self.refused_access(error))
    }

    fn end(&self) {
        if let Err(error) = Target::quiesce(self) {
            tracing::error!(device = self.name(), %error, "the device still works after its client has gone");
        }
        if let Err(error) = self.parts.space.unmap_all(Self::quiesce_deadline()) {
            tracing::error!(device = self.name(), %error, "guest memory is still in use after the client has gone");
        }
    }
}

impl Target for Emulated {
    /// Stops the device, and then its way to memory: after this no DMA is under way, whatever the device does.
    fn quiesce(&self) -> Result<(), TargetError> {
        let stopped = self.stop_work(Self::quiesce_deadline());
        stopped.inspect_err(|_| self.parts.log.give_up())
    }

    fn run(&self) -> Result<(), TargetError> {
        self.parts.space.resume();
        self.parts.device.run();
        Ok(())
    }

    fn identity(&self) -> Identity {
        self.parts.device.identity()
    }

    fn max_state_len(&self) -> usize {
        self.parts.device.max_state_len()
    }

    fn save(&self) -> Result<Vec<u8>, SaveError> {
        self.parts.device.save()
    }

    fn restore(&self, state: &[u8]) -> Result<(), RestoreError> {
        self.parts.device.restore(state)
    }

    /// An eventfd that was signalled on the source, and not seen there, is lost: signal what is pending once more.
    fn resumed(&self) {
        self.parts.interrupts.resignal();
    }
}
