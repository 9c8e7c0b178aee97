//! [`Passthrough`]: a device of the kernel's for one connection.

use std::fmt;
use std::io;
use std::sync::Arc;

use pagetrail_tracker::{AttachedDevice, Attachment, Selection, Witness};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::interrupts::{Interrupts, Unheard};
use super::iommu::Shared;
use super::kernel::Device;
use super::mappings::{MappingError, Mappings, Reach};
use super::migration::{Place, Relay, RelayError};
use super::regions::{self, Regions};
use super::{Inquiry, PassthroughModel};
use crate::backend::Backend;
use crate::device::Identity;
use crate::guest::{AllowedFiles, MapRequest, Share};
use crate::host::Binding;
use crate::irq::{IrqInfo, SetIrqs};
use crate::migration::{MigState, PrecopyInfo};
use crate::vfu::{Answer, Connection, Message};
use crate::wire::command;

/// Version of [`Identity`] of the stream that carries a driver's data.
const STREAM_VERSION: u32 = 1;

/// Where config space says what the device is (PCI Local Bus 3.0, section 6.1): bytes from here on.
const ID: u64 = 0x00;
const SUBSYSTEM: u64 = 0x2c;

/// A device that the client has.
///
/// Dropping it gives the device back, in this order: nothing interrupts, nothing writes, nothing is mapped.
pub(crate) struct Passthrough {
    name: String,
    device: Arc<dyn Device>,
    regions: Regions,
    interrupts: Interrupts,
    migration: Option<Relay>,
    attached: Arc<Attached>,
    log: Arc<Attachment>,
    mappings: Mappings,
    // After the mappings, which are made in it.
    _shared: Option<Arc<Shared>>,
}

/// The device's place in the VM's address space, until it is left.
pub(super) struct Attached(pub(super) Mutex<Option<AttachedDevice>>);

impl Place for Attached {
    fn quiesce(&self, witness: Arc<dyn Witness>) -> Box<dyn Send> {
        Box::new(self.0.lock().as_ref().map(|attached| attached.quiesce(witness)))
    }
}

/// What a device is put together of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) device: Arc<dyn Device>,
    pub(super) regions: Regions,
    pub(super) attached: Arc<Attached>,
    pub(super) log: Arc<Attachment>,
    pub(super) mappings: Mappings,
    pub(super) shared: Option<Arc<Shared>>,
}

impl Passthrough {
    /// The device of `model` for the client behind `connection`, attached to the VM's address space, with its log.
    ///
    /// # Errors
    ///
    /// When it cannot be had, or its client could not be told which pages it writes.
    pub(crate) fn open(
        model: &PassthroughModel,
        name: &str,
        files: AllowedFiles,
        share: Share,
        binding: &Binding,
        connection: Connection,
    ) -> anyhow::Result<(Self, Arc<Attachment>)> {
        let opened = model.take()?;
        let cdev = opened.cdev;
        let shared = model.config.iommu.shared(&opened.iommufd)?;
        let attached = shared
            .space
            .attach(cdev.clone(), cdev.iommufd_id())
            .map_err(|source| super::OpenError::of_attach(&opened.path, source))?;
        let kind = model.config.kind(&attached, &cdev, Inquiry::Needed);
        let log = Arc::new(binding.ioas().attach(kind, name)?);
        let explanation = log.explanation().to_string().replace('\n', ";");
        tracing::info!(device = name, "dirty pages: {explanation}");
        let device: Arc<dyn Device> = cdev;
        let passthrough = Self::put_together(
            Parts {
                name: name.to_owned(),
                regions: Regions::of(&*device, model.config.bars)?,
                device,
                attached: Arc::new(Attached(Mutex::new(Some(attached)))),
                log: Arc::clone(&log),
                mappings: Mappings::new(Arc::clone(&shared.memory), files, share),
                shared: Some(shared),
            },
            connection,
        )?;
        Ok((passthrough, log))
    }

    pub(super) fn put_together(parts: Parts, connection: Connection) -> io::Result<Self> {
        let Parts {
            name,
            device,
            regions,
            attached,
            log,
            mappings,
            shared,
        } = parts;
        let watched = name.clone();
        let interrupts = Interrupts::new(&device, &name, move |what| {
            if what == Unheard::Request {
                tracing::warn!(
                    device = watched,
                    "the client does not listen to the host's wish, and is dropped"
                );
                connection.close();
            }
        })?;
        let identity = identity(&regions, &*device)?;
        let migration = match log.explanation().selection() {
            Selection::Untracked => None,
            _ => Relay::of(&device, Arc::clone(&attached) as _, identity)?,
        };
        Ok(Self {
            name,
            device,
            regions,
            interrupts,
            migration,
            attached,
            log,
            mappings,
            _shared: shared,
        })
    }

    fn migration(&self) -> Result<&Relay, Errno> {
        self.migration.as_ref().ok_or(Errno::NOTTY)
    }

    fn refused(&self, what: &str, error: &RelayError) -> Errno {
        tracing::warn!(device = self.name, %error, "cannot {what}");
        error.errno()
    }

    fn memory_refused(&self, what: fmt::Arguments<'_>, error: MappingError) -> Errno {
        let errno = error.errno();
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(device = self.name, error, "refused to {what} of guest memory");
        errno
    }

    /// Learns where the device has gone by itself.
    fn follow(&self) {
        let Some((from, to)) = self.migration.as_ref().and_then(Relay::follow) else {
            return;
        };
        tracing::warn!(device = self.name, %from, %to, "the device has changed its migration state, as by a reset");
        self.give_up_if_failed();
    }

    /// REGION_WRITE. In config space the guest's driver can reset the device.
    fn write_region(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let written = self.regions.write(&*self.device, payload);
        if regions::is_of_config(payload) {
            self.follow();
        }
        written
    }

    fn has_failed(&self) -> bool {
        let migration = self.migration.as_ref();
        migration.is_some_and(|migration| migration.state() == MigState::Error)
    }

    /// In ERROR the device may write on after the last report.
    fn give_up_if_failed(&self) {
        if self.has_failed() {
            tracing::error!(
                device = self.name,
                "the device failed: it must be reset, and a migration must not go on"
            );
            self.log.give_up();
        }
    }

    fn reset_device(&self) -> io::Result<()> {
        match &self.migration {
            Some(migration) => migration.reset(|| self.device.reset()),
            None => self.device.reset(),
        }
    }
}

impl Backend for Passthrough {
    fn map(&self, request: MapRequest) -> Result<(), Errno> {
        let (iova, size) = (request.iova, request.size);
        let mapped = self.mappings.map(request);
        let reach = mapped
            .map_err(|error| self.memory_refused(format_args!("map {size:#x} bytes at {iova:#x}"), error))?;
        if reach == Reach::Unreachable {
            tracing::debug!(
                device = self.name,
                iova = format_args!("{iova:#x}"),
                size = format_args!("{size:#x}"),
                "memory without a file descriptor cannot be reached by the device"
            );
        }
        Ok(())
    }

    fn unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        let unmapped = self.mappings.unmap(iova, size);
        unmapped
            .map_err(|error| self.memory_refused(format_args!("unmap {size:#x} bytes at {iova:#x}"), error))
    }

    fn unmap_all(&self) -> Result<(), Errno> {
        let unmapped = self.mappings.unmap_all();
        unmapped.map_err(|error| self.memory_refused(format_args!("unmap all"), error))
    }

    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        self.interrupts.info(index)
    }

    fn set_irqs(&self, request: SetIrqs) -> Result<(), Errno> {
        self.interrupts.set(request).inspect_err(|error| {
            tracing::debug!(device = self.name, %error, "refused to set interrupts");
        })
    }

    fn migration_flags(&self) -> Result<u64, Errno> {
        Ok(self.migration()?.flags())
    }

    fn migration_state(&self) -> Result<MigState, Errno> {
        self.follow();
        Ok(self.migration()?.state())
    }

    fn set_migration_state(&self, to: MigState) -> Result<(), Errno> {
        self.follow();
        let migration = self.migration()?;
        let from = migration.state();
        migration.set_state(to).map_err(|error| {
            let now = migration.state();
            tracing::warn!(device = self.name, %from, %to, %now, %error, "the migration state did not change as asked");
            self.give_up_if_failed();
            error.errno()
        })?;
        tracing::info!(device = self.name, %from, %to, "migration state");
        Ok(())
    }

    fn migration_data_size(&self) -> Result<u64, Errno> {
        let size = self.migration()?.data_size();
        size.map_err(|error| self.refused("say how much migration data there is", &error))
    }

    fn read_migration_data(&self, out: &mut [u8]) -> Result<usize, Errno> {
        let read = self.migration()?.read(out);
        read.map_err(|error| self.refused("read migration data", &error))
    }

    fn write_migration_data(&self, data: &[u8]) -> Result<(), Errno> {
        self.migration()?.write(data).map_err(|error| {
            tracing::error!(device = self.name, %error, "the migration stream was refused");
            error.errno()
        })
    }

    fn precopy_info(&self) -> Result<PrecopyInfo, Errno> {
        let info = self.migration()?.precopy_info();
        info.map_err(|error| error.errno())
    }

    fn reset(&self) -> Result<(), Errno> {
        if !self.regions.can_reset() {
            tracing::warn!(device = self.name, "the device has no reset of its own");
            return Err(Errno::NOTTY);
        }
        self.reset_device().map_err(|error| {
            tracing::error!(device = self.name, %error, "the device could not be reset");
            self.give_up_if_failed();
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })?;
        tracing::info!(device = self.name, "device reset");
        Ok(())
    }

    fn is_failed(&self) -> bool {
        self.follow();
        self.has_failed()
    }

    fn other(&self, message: &Message<'_>) -> Result<Answer, Errno> {
        let payload = message.payload;
        match message.command {
            command::DEVICE_GET_INFO => self.regions.device_info(payload).map(Answer::Reply),
            command::DEVICE_GET_REGION_INFO => {
                let information = self.regions.region_info(&*self.device, payload)?;
                Ok(match information.file {
                    Some(file) => Answer::WithFile(information.payload, file),
                    None => Answer::Reply(information.payload),
                })
            }
            command::REGION_READ => self.regions.read(&*self.device, payload).map(Answer::Reply),
            command::REGION_WRITE => self.write_region(payload).map(Answer::Reply),
            _ => Ok(Answer::Pass),
        }
    }

    /// The device is stopped and reset, as far as it can be, so that it writes nothing more, and leaves the address space. What it wrote
    /// until then stays due, though the reset may end the device's own log.
    fn end(&self) {
        self.interrupts.disable();
        if let Err(error) = self.regions.stop_dma(&*self.device) {
            tracing::error!(device = self.name, %error, "the device could not be stopped after its client has gone");
        }
        self.log.gather();
        if self.regions.can_reset()
            && let Err(error) = self.reset_device()
        {
            tracing::error!(device = self.name, %error, "the device could not be reset after its client has gone");
        }
        drop(self.attached.0.lock().take());
        if let Err(error) = self.mappings.unmap_all() {
            tracing::error!(device = self.name, %error, "guest memory is still mapped after the client has gone");
        }
    }
}

/// What the destination of a migration must be, too.
fn identity(regions: &Regions, device: &dyn Device) -> io::Result<Identity> {
    let mut config = Vec::new();
    let registers = [
        ("vendor", "device", ID),
        ("subsystem-vendor", "subsystem", SUBSYSTEM),
    ];
    for (first, second, offset) in registers {
        let [a, b, c, d] = regions.read_config(device, offset)?;
        config.push((first.to_owned(), u16::from_le_bytes([a, b]).into()));
        config.push((second.to_owned(), u16::from_le_bytes([c, d]).into()));
    }
    Ok(Identity {
        kind: "vfio".to_owned(),
        version: STREAM_VERSION,
        config,
    })
}

#[cfg(test)]
mod tests;
