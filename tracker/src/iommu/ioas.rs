//! [`KernelIoas`].

use std::fs::File;
use std::sync::Arc;
#[cfg(not(loom))]
use std::time::{Duration, Instant};

use iommufd_ioctls::{AttachHwpt, IommuFd};
use rustix::io::Errno;

use super::attached::AttachedDevice;
use super::error::IommuError;
use super::host::Host;
use super::kernel::{Access, DirtyControl, Iommufd, Leaves, Memory, ObjectId, Tracking};
use super::mappings::Mappings;
use super::page_tables::{DeviceKey, PageTables};
use super::state::{Core, State};
use super::tracker::IommuTracker;
use crate::granules::Granules;
use crate::sync::Mutex;
use crate::{IOVA_END, IovaRange};

/// An address space of the kernel's: its mappings, page tables and dirty tracker.
///
/// It lives as long as it has devices, and its memory stays mapped as long.
#[derive(Debug)]
pub struct KernelIoas {
    core: Arc<Core>,
    tracker: Arc<IommuTracker>,
}

impl KernelIoas {
    /// An address space of `iommufd` with nothing in it.
    ///
    /// # Errors
    /// [`IommuError::Create`].
    pub fn new(iommufd: Arc<IommuFd>, leaves: Leaves) -> Result<Self, IommuError> {
        let page = rustix::param::page_size() as u64;
        Self::on(Box::new(Host(iommufd)), leaves, page)
    }

    pub(super) fn on(kernel: Box<dyn Iommufd>, leaves: Leaves, page: u64) -> Result<Self, IommuError> {
        let kept = Granules::of_whole_space().map_err(IommuError::Create)?;
        let ioas = kernel.alloc_ioas(leaves).map_err(IommuError::Create)?;
        let state = State {
            mappings: Mappings::default(),
            page_tables: PageTables::default(),
            log: None,
            kept,
        };
        let core = Arc::new(Core {
            kernel,
            ioas,
            leaves,
            page,
            state: Mutex::new(state),
            #[cfg(not(loom))]
            freed: crate::sync::Condvar::new(),
        });
        let tracker = Arc::new(IommuTracker::new(core.clone()));
        Ok(Self { core, tracker })
    }

    /// The tracker of every page table with dirty bits. It serves those devices that [say so](AttachedDevice::tracker).
    pub fn tracker(&self) -> &Arc<IommuTracker> {
        &self.tracker
    }

    /// Lets devices reach memory, the part of `file` from `offset` on, at `range`.
    ///
    /// The memory is locked until it is unmapped. Range and offset are multiples of the page size. `file` can be closed
    /// afterwards.
    ///
    /// # Errors
    /// [`IommuError`]; nothing is mapped then.
    pub fn map(&self, range: IovaRange, file: &File, offset: u64, access: Access) -> Result<(), IommuError> {
        if range.last().get() >= IOVA_END {
            return Err(IommuError::OutOfReach(range));
        }
        let is_whole = |bytes: u64| bytes.is_multiple_of(self.core.page);
        if ![range.start().get(), range.len(), offset]
            .into_iter()
            .all(is_whole)
        {
            return Err(IommuError::Unaligned { range, offset });
        }
        if !self.core.state.lock().mappings.reserve(range) {
            return Err(IommuError::Mapped(range));
        }
        let made = self
            .core
            .kernel
            .map(self.core.ioas, range, Memory { file, offset }, access);
        let mut state = self.core.state.lock();
        state.mappings.release(&range);
        match made {
            Ok(hold) => state.mappings.insert(range, access, hold),
            Err(source) => {
                self.core.is_free_now();
                return Err(match Errno::from_io_error(&source) {
                    Some(Errno::NOMEM) => IommuError::CannotLock(range),
                    _ => IommuError::Map { range, source },
                });
            }
        }
        Ok(())
    }

    /// As [`map`](Self::map), but waits for up to `patience` until others have unmapped what is in the way.
    ///
    /// Of several clients that map and unmap the same memory, each in its own order, one may be ahead of another.
    ///
    /// # Errors
    /// As of [`map`](Self::map); [`IommuError::Mapped`] once the time is up.
    #[cfg(not(loom))]
    pub fn map_when_free(
        &self,
        range: IovaRange,
        file: &File,
        offset: u64,
        access: Access,
        patience: Duration,
    ) -> Result<(), IommuError> {
        let deadline = Instant::now() + patience;
        loop {
            match self.map(range, file, offset, access) {
                Err(IommuError::Mapped(_)) if self.becomes_free(&range, deadline) => {}
                result => return result,
            }
        }
    }

    /// Waits until nothing is in the way of a mapping of `range`. Returns whether that was so before the deadline.
    #[cfg(not(loom))]
    fn becomes_free(&self, range: &IovaRange, deadline: Instant) -> bool {
        let mut state = self.core.state.lock();
        while state.mappings.overlap(range) {
            if self.core.freed.wait_until(&mut state, deadline).timed_out() {
                return !state.mappings.overlap(range);
            }
        }
        true
    }

    /// Undoes the [`map`](Self::map) of exactly `range`. What devices wrote there stays due.
    ///
    /// As long as any of them can write, all of a writable mapping becomes due.
    ///
    /// # Errors
    /// [`IommuError`]; the memory is still mapped then, and due.
    pub fn unmap(&self, range: IovaRange) -> Result<(), IommuError> {
        let mut state = self.core.state.lock();
        let access = state
            .mappings
            .access(&range)
            .ok_or(IommuError::NotMapped(range))?;
        self.core
            .unmap(&mut state, &range, access)
            .map_err(|source| IommuError::Unmap { range, source })
    }

    /// Attaches a device that is bound to the iommufd with the id `iommufd_id`, to a page table it can share with others
    /// or to one of its own.
    ///
    /// It counts as one that writes until it is [quiesced](AttachedDevice::quiesce).
    ///
    /// # Errors
    /// [`IommuError`]; the device is not attached then.
    pub fn attach(&self, device: Arc<dyn AttachHwpt>, iommufd_id: u32) -> Result<AttachedDevice, IommuError> {
        let id = ObjectId(iommufd_id);
        let control = self.core.kernel.dirty_control(id);
        let control = control.map_err(IommuError::HardwareInfo)?;
        let key = match self.attach_to_shared(&*device, control) {
            Some(key) => key,
            None => self.attach_alone(&*device, id, control)?,
        };
        let tracker = control.map(|control| (self.tracker.clone(), control));
        Ok(AttachedDevice::new(self.core.clone(), device, key, tracker))
    }

    /// Attaches a device to a page table that there is, if it can have one of them.
    fn attach_to_shared(&self, device: &dyn AttachHwpt, control: Option<DirtyControl>) -> Option<DeviceKey> {
        let mut state = self.core.state.lock();
        let shared = state
            .page_tables
            .all()
            .iter()
            .filter(|page_table| page_table.control == control)
            .find(|page_table| device.attach_hwpt(page_table.id.0).is_ok())
            .map(|page_table| page_table.id)?;
        Some(state.page_tables.add_device(shared))
    }

    /// Attaches a device to a page table made for it.
    fn attach_alone(
        &self,
        device: &dyn AttachHwpt,
        id: ObjectId,
        control: Option<DirtyControl>,
    ) -> Result<DeviceKey, IommuError> {
        let (kernel, ioas) = (&self.core.kernel, self.core.ioas);
        // The kernel fills it with all that is mapped, while nobody waits: without a device it has nothing to tell.
        let page_table = kernel
            .alloc_page_table(id, ioas, control)
            .map_err(IommuError::Attach)?;
        let mut state = self.core.state.lock();
        // It tracks, if the others do, before the device can write.
        let tracking = match (control, &state.log) {
            (Some(_), Some(_)) => kernel
                .set_tracking(page_table, Tracking::On)
                .map_err(IommuError::Track),
            _ => Ok(()),
        };
        let attached = tracking.and_then(|()| device.attach_hwpt(page_table.0).map_err(IommuError::Attach));
        if let Err(error) = attached {
            drop(state);
            self.core.destroy(page_table);
            return Err(error);
        }
        state.page_tables.add(page_table, control);
        Ok(state.page_tables.add_device(page_table))
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
