//! [`PageTables`]: the page tables of an address space, and the devices that use them.

use std::io;
use std::sync::Arc;

use super::attached::Witness;
use super::kernel::{After, DirtyControl, Iommufd, ObjectId, Tracking};
use crate::IovaRange;
use crate::found::Found;
use crate::granules::GRANULE;

/// Names a device that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceKey(u64);

/// The page tables of an address space. Each has a device at least, except for moments.
#[derive(Debug, Default)]
pub(super) struct PageTables {
    all: Vec<PageTable>,
    next_device: u64,
}

/// One page table.
#[derive(Debug)]
pub(super) struct PageTable {
    pub(super) id: ObjectId,
    /// `None` if it has no dirty bits.
    pub(super) control: Option<DirtyControl>,
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    key: DeviceKey,
    /// Of those that hold it quiesced.
    witnesses: Vec<Arc<dyn Witness>>,
}

impl Device {
    fn is_quiet(&self) -> bool {
        !self.witnesses.is_empty() && self.witnesses.iter().all(|witness| witness.is_quiet())
    }
}

impl PageTables {
    /// The one page table.
    pub(super) fn of(page_table: PageTable) -> Self {
        Self {
            all: vec![page_table],
            next_device: 0,
        }
    }

    pub(super) fn all(&self) -> &[PageTable] {
        &self.all
    }

    /// Adds a page table without devices.
    pub(super) fn add(&mut self, id: ObjectId, control: Option<DirtyControl>) {
        let devices = Vec::new();
        self.all.push(PageTable { id, control, devices });
    }

    /// Notes that a device uses the page table `id`.
    pub(super) fn add_device(&mut self, id: ObjectId) -> DeviceKey {
        let key = DeviceKey(self.next_device);
        self.next_device += 1;
        let device = Device {
            key,
            witnesses: Vec::new(),
        };
        let page_table = self.all.iter_mut().find(|page_table| page_table.id == id);
        page_table.expect("a page table of the list").devices.push(device);
        key
    }

    /// Notes that a device uses its page table no more. Returns a page table that nobody uses now, which leaves the list.
    pub(super) fn remove_device(&mut self, key: DeviceKey) -> Option<PageTable> {
        for page_table in &mut self.all {
            page_table.devices.retain(|device| device.key != key);
        }
        let unused = self
            .all
            .iter()
            .position(|page_table| page_table.devices.is_empty())?;
        Some(self.all.swap_remove(unused))
    }

    /// Adds one to those that hold the device quiesced.
    pub(super) fn quiesce(&mut self, key: DeviceKey, witness: Arc<dyn Witness>) {
        if let Some(device) = self.device(key) {
            device.witnesses.push(witness);
        }
    }

    /// Takes one from those that hold the device quiesced.
    pub(super) fn resume(&mut self, key: DeviceKey, witness: &Arc<dyn Witness>) {
        let Some(device) = self.device(key) else { return };
        let held = device
            .witnesses
            .iter()
            .position(|held| Arc::ptr_eq(held, witness));
        if let Some(held) = held {
            device.witnesses.swap_remove(held);
        }
    }

    /// Whether there is a page table with dirty bits.
    pub(super) fn can_track(&self) -> bool {
        self.tracking().next().is_some()
    }

    /// Whether no device sets dirty bits, or has set any since it was quiesced.
    pub(super) fn are_quiet(&self) -> bool {
        self.tracking()
            .flat_map(|page_table| &page_table.devices)
            .all(Device::is_quiet)
    }

    /// Switches tracking in all page tables; after an error those that were switched on are off again.
    pub(super) fn set_tracking(&self, kernel: &dyn Iommufd, tracking: Tracking) -> io::Result<()> {
        let mut result = Ok(());
        for (position, page_table) in self.tracking().enumerate() {
            let switched = kernel.set_tracking(page_table.id, tracking);
            if switched.is_err() && tracking == Tracking::On {
                for before in self.tracking().take(position) {
                    // It records what nobody reads: slower, not wrong.
                    let _ = kernel.set_tracking(before.id, Tracking::Off);
                }
                return switched;
            }
            result = result.and(switched);
        }
        result
    }

    /// The pages of `range`, which is all mapped, that are dirty in any of the page tables.
    pub(super) fn read(&self, kernel: &dyn Iommufd, range: &IovaRange, after: After) -> io::Result<Found> {
        let mut found = Found::new(range, GRANULE)?;
        for page_table in self.tracking() {
            kernel.read_dirty(page_table.id, *range, found.as_mut_bytes(), after)?;
        }
        Ok(found)
    }

    fn tracking(&self) -> impl Iterator<Item = &PageTable> {
        self.all.iter().filter(|page_table| page_table.control.is_some())
    }

    fn device(&mut self, key: DeviceKey) -> Option<&mut Device> {
        self.all
            .iter_mut()
            .flat_map(|page_table| &mut page_table.devices)
            .find(|device| device.key == key)
    }
}
