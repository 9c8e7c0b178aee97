//! A kernel in memory, for the tests of what is built on [`Iommufd`].
//!
//! It does what Linux does, the unwelcome part included: switching tracking on clears the bits, a walk over dirty bits goes
//! on from where it is by the size of the entry it finds, clears the bit of all of it, and ends at a hole without an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use iommufd_ioctls::AttachHwpt;
use rustix::io::Errno;

use super::attached::Witness;
use super::kernel::{Access, After, DirtyControl, Hold, Iommufd, Leaves, Memory, ObjectId, Tracking};
use crate::IovaRange;

pub(super) const PAGE: u64 = 4096;
/// Pages of a large page of this kernel.
pub(super) const LARGE: u64 = 8;

/// A way to break the promise, or to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bit of this page is never reported.
    DropPage(u64),
    /// Bits are cleared before they are looked at.
    ClearFirst,
    /// Reading fails, after bits were cleared.
    ReadFails,
    /// Tracking cannot be switched on.
    EnableFails,
    /// Nothing is unmapped.
    UnmapFails,
    /// No memory may be locked.
    NoLocking,
}

/// A call that something can happen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    AllocPageTable,
    Unmap,
    Destroy,
}

/// What happens, once.
type Event = Box<dyn FnOnce() + Send>;

pub(super) struct Machine {
    control: Option<DirtyControl>,
    state: Mutex<State>,
    events: Mutex<Vec<(Call, Event)>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    next_object: u32,
    leaves: Option<Leaves>,
    areas: BTreeMap<u64, Area>,
    page_tables: BTreeMap<ObjectId, PageTable>,
    /// What pages hold, by the IOVA they are always mapped at.
    memory: BTreeMap<u64, u64>,
    times_enabled: usize,
}

#[derive(Clone, Copy, Debug)]
struct Area {
    last: u64,
    access: Access,
}

#[derive(Debug)]
struct PageTable {
    iommu: u32,
    tracking: Tracking,
    /// First pages of dirty entries.
    dirty: BTreeSet<u64>,
}

impl Machine {
    pub(super) fn new(control: Option<DirtyControl>) -> Arc<Self> {
        Arc::new(Self {
            control,
            state: Mutex::default(),
            events: Mutex::default(),
        })
    }

    /// Has `event` happen in the next `call`.
    pub(super) fn have_happen(&self, call: Call, event: impl FnOnce() + Send + 'static) {
        self.events
            .lock()
            .expect("no test has failed")
            .push((call, Box::new(event)));
    }

    /// What is to happen in `call` does.
    fn enter(&self, call: Call) {
        let event = {
            let mut events = self.events.lock().expect("no test has failed");
            let due = events.iter().position(|(in_which, _)| *in_which == call);
            due.map(|due| events.swap_remove(due).1)
        };
        if let Some(event) = event {
            event();
        }
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(super) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// How often a page table was switched on.
    pub(super) fn times_enabled(&self) -> usize {
        self.lock().times_enabled
    }

    /// What the page at `page` holds.
    pub(super) fn content(&self, page: u64) -> u64 {
        self.lock().memory.get(&page).copied().unwrap_or(0)
    }

    pub(super) fn page_tables(&self) -> usize {
        self.lock().page_tables.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has failed")
    }
}

impl State {
    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn area(&self, page: u64) -> Option<(u64, Area)> {
        let (start, area) = self.areas.range(..=page).next_back()?;
        (page <= area.last).then_some((*start, *area))
    }

    /// The pages of the page-table entry of a mapped page.
    fn leaf(&self, page: u64) -> Option<RangeInclusive<u64>> {
        let (start, area) = self.area(page)?;
        let first = page & !(LARGE - 1);
        let large = first..=first + (LARGE - 1);
        let fits = start <= *large.start() && *large.end() <= area.last;
        let is_large = self.leaves == Some(Leaves::Large) && fits;
        Some(if is_large { large } else { page..=page })
    }

    fn new_object(&mut self) -> ObjectId {
        self.next_object += 1;
        ObjectId(self.next_object)
    }

    /// Looks at the entries from `first` on, as a driver does.
    fn walk(&mut self, id: ObjectId, pages: RangeInclusive<u64>, after: After) -> Vec<u64> {
        let mut found = Vec::new();
        let mut page = *pages.start();
        while page <= *pages.end() {
            // A hole ends it.
            let Some(leaf) = self.leaf(page) else { return found };
            let clears_first = self.has(Fault::ClearFirst);
            let Some(page_table) = self.page_tables.get_mut(&id) else {
                return found;
            };
            let was_dirty = page_table.dirty.contains(leaf.start());
            if after == After::Clear {
                page_table.dirty.remove(leaf.start());
            }
            let size = leaf.end() - leaf.start() + 1;
            if was_dirty && !clears_first {
                // Recorded from where the walk is, and not from where the entry begins.
                found.extend(page..page + size);
            }
            page += size;
        }
        found
    }
}

/// The machine's `/dev/iommu`.
#[derive(Debug)]
pub(super) struct Model(pub(super) Arc<Machine>);

impl Iommufd for Model {
    fn alloc_ioas(&self, leaves: Leaves) -> io::Result<ObjectId> {
        let mut state = self.0.lock();
        state.leaves = Some(leaves);
        Ok(state.new_object())
    }

    fn dirty_control(&self, device: ObjectId) -> io::Result<Option<DirtyControl>> {
        Ok(self
            .0
            .control
            .filter(|_| device.0 != ModelDevice::WITHOUT_DIRTY_BITS))
    }

    fn alloc_page_table(
        &self,
        device: ObjectId,
        _ioas: ObjectId,
        control: Option<DirtyControl>,
    ) -> io::Result<ObjectId> {
        self.0.enter(Call::AllocPageTable);
        let mut state = self.0.lock();
        let id = state.new_object();
        let mut dirty = BTreeSet::new();
        if control == Some(DirtyControl::PerPte) {
            let areas = state
                .areas
                .iter()
                .filter(|(_, area)| area.access == Access::Write);
            let pages: Vec<u64> = areas.flat_map(|(start, area)| *start..=area.last).collect();
            dirty.extend(pages.iter().filter_map(|page| Some(*state.leaf(*page)?.start())));
        }
        let page_table = PageTable {
            iommu: device.0,
            tracking: Tracking::Off,
            dirty,
        };
        state.page_tables.insert(id, page_table);
        Ok(id)
    }

    fn destroy(&self, object: ObjectId) -> io::Result<()> {
        self.0.enter(Call::Destroy);
        let mut state = self.0.lock();
        if state.page_tables.remove(&object).is_none() {
            state.areas.clear();
        }
        Ok(())
    }

    fn map(
        &self,
        _ioas: ObjectId,
        range: IovaRange,
        _memory: Memory<'_>,
        access: Access,
    ) -> io::Result<Hold> {
        let mut state = self.0.lock();
        if state.has(Fault::NoLocking) {
            return Err(Errno::NOMEM.into());
        }
        let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
        if (first..=last).any(|page| state.area(page).is_some()) {
            return Err(Errno::EXIST.into());
        }
        state.areas.insert(first, Area { last, access });
        if self.0.control == Some(DirtyControl::PerPte) && access == Access::Write {
            let leaves: Vec<u64> = (first..=last)
                .filter_map(|page| Some(*state.leaf(page)?.start()))
                .collect();
            for page_table in state.page_tables.values_mut() {
                page_table.dirty.extend(leaves.iter().copied());
            }
        }
        Ok(Hold::Nothing)
    }

    fn unmap(&self, _ioas: ObjectId, range: IovaRange) -> io::Result<()> {
        self.0.enter(Call::Unmap);
        let mut state = self.0.lock();
        if state.has(Fault::UnmapFails) {
            return Err(Errno::BUSY.into());
        }
        let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
        match state.areas.get(&first) {
            Some(area) if area.last == last => state.areas.remove(&first),
            _ => return Err(Errno::NOENT.into()),
        };
        for page_table in state.page_tables.values_mut() {
            page_table.dirty.retain(|page| !(first..=last).contains(page));
        }
        Ok(())
    }

    fn set_tracking(&self, page_table: ObjectId, tracking: Tracking) -> io::Result<()> {
        let mut state = self.0.lock();
        if tracking == Tracking::On && state.has(Fault::EnableFails) {
            return Err(Errno::IO.into());
        }
        state.times_enabled += usize::from(tracking == Tracking::On);
        let page_table = state.page_tables.get_mut(&page_table).ok_or(Errno::NOENT)?;
        if tracking == Tracking::On {
            page_table.dirty.clear();
        }
        page_table.tracking = tracking;
        Ok(())
    }

    fn read_dirty(
        &self,
        page_table: ObjectId,
        range: IovaRange,
        bitmap: &mut [u8],
        after: After,
    ) -> io::Result<()> {
        let (start, len) = (range.start().get(), range.len());
        if !start.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(Errno::INVAL.into());
        }
        let mut state = self.0.lock();
        let (first, last) = (start / PAGE, range.last().get() / PAGE);
        let found = state.walk(page_table, first..=last, after);
        if state.has(Fault::ReadFails) {
            return Err(Errno::IO.into());
        }
        for page in found {
            if page <= last && !state.has(Fault::DropPage(page)) {
                bitmap[((page - first) / 8) as usize] |= 1 << ((page - first) % 8);
            }
        }
        Ok(())
    }
}

/// A device of the machine.
#[derive(Debug)]
pub(super) struct ModelDevice {
    machine: Arc<Machine>,
    /// Its number, which is its IOMMU's as well.
    pub(super) id: u32,
    attached: Mutex<Option<ObjectId>>,
    was_reset: AtomicBool,
}

impl ModelDevice {
    /// The device whose IOMMU has no dirty bits.
    pub(super) const WITHOUT_DIRTY_BITS: u32 = 99;

    pub(super) fn new(machine: &Arc<Machine>, id: u32) -> Arc<Self> {
        Arc::new(Self {
            machine: machine.clone(),
            id,
            attached: Mutex::new(None),
            was_reset: AtomicBool::new(false),
        })
    }

    /// The host resets it, which has it run whatever it was led to.
    pub(super) fn reset(&self) {
        self.was_reset.store(true, Ordering::SeqCst);
    }

    /// Puts `value` into a page, if the device can write it. Returns whether it can.
    pub(super) fn write(&self, page: u64, value: u64) -> bool {
        let attached = *self.attached.lock().expect("no test has failed");
        let mut state = self.machine.lock();
        let Some(id) = attached else { return false };
        if !matches!(state.area(page), Some((_, area)) if area.access == Access::Write) {
            return false;
        }
        let leaf = state.leaf(page).expect("it is mapped");
        let page_table = state
            .page_tables
            .get_mut(&id)
            .expect("the device is attached to it");
        if page_table.tracking == Tracking::On || self.machine.control == Some(DirtyControl::PerPte) {
            page_table.dirty.insert(*leaf.start());
        }
        state.memory.insert(page, value);
        true
    }
}

impl Witness for ModelDevice {
    fn is_quiet(&self) -> bool {
        !self.was_reset.load(Ordering::SeqCst)
    }
}

impl AttachHwpt for ModelDevice {
    fn attach_hwpt(&self, page_table: u32) -> io::Result<()> {
        let id = ObjectId(page_table);
        match self.machine.lock().page_tables.get(&id) {
            Some(page_table) if page_table.iommu == self.id => {}
            _ => return Err(Errno::INVAL.into()),
        }
        *self.attached.lock().expect("no test has failed") = Some(id);
        Ok(())
    }

    fn detach_hwpt(&self) -> io::Result<()> {
        *self.attached.lock().expect("no test has failed") = None;
        Ok(())
    }
}
