//! [`Logged`]: an address space with a virtual function in it that logs what it writes.

use std::sync::Arc;

use anyhow::Result;
use pagetrail_rig_devices::MIB;
use pagetrail_tracker::conformance::Rig;
use pagetrail_tracker::{
    Access, AttachedDevice, DeviceTracker, DirtyTracker, IovaRange, KernelIoas, Leaves, PageSize,
};

use super::Vf;
use crate::memory::Memory;
use crate::space::{map, range, read_report};

/// An address space, a virtual function attached to it, its tracker, and memory at its beginning.
pub(crate) struct Logged {
    pub(crate) tracker: Arc<DeviceTracker>,
    // Goes before the address space: the virtual function must be able to do without.
    _attached: AttachedDevice,
    _ioas: KernelIoas,
    pub(crate) memory: Memory,
    pub(crate) vf: Arc<Vf>,
}

impl Logged {
    /// Bytes of [`Logged::small`]'s memory.
    pub(crate) const LEN: u64 = 64 * MIB;

    pub(crate) fn new(vf: &Arc<Vf>, len: u64) -> Result<Self> {
        let memory = Memory::small(len)?;
        let ioas = KernelIoas::new(vf.iommufd.clone(), Leaves::Small)?;
        let attached = ioas.attach(vf.vfio.clone(), vf.id)?;
        map(&ioas, &memory, range(0, len), Access::Write)?;
        Ok(Self {
            tracker: Arc::new(DeviceTracker::new(vf.vfio.clone())?),
            _attached: attached,
            _ioas: ioas,
            memory,
            vf: vf.clone(),
        })
    }

    pub(crate) fn small(vf: &Arc<Vf>) -> Result<Self> {
        Self::new(vf, Self::LEN)
    }

    /// With all of the small memory logged, in pages of 4 KiB.
    pub(crate) fn started(vf: &Arc<Vf>) -> Result<Self> {
        let logged = Self::small(vf)?;
        logged.start(&[range(0, Self::LEN)], PageSize::SIZE_4K)?;
        Ok(logged)
    }

    pub(crate) fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> Result<()> {
        Ok(self.tracker.start(ranges, page_size)?)
    }

    /// The numbers of the 4 KiB pages of `range` that are reported, and forgotten.
    pub(crate) fn report(&self, range: IovaRange) -> Result<Vec<u64>> {
        read_report(range, |report| self.tracker.read_and_clear(report))
    }

    /// Those of all of the memory.
    pub(crate) fn report_all(&self) -> Result<Vec<u64>> {
        self.report(range(0, Self::LEN))
    }
}

impl Rig for Logged {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.tracker.clone()
    }

    fn write(&self, range: IovaRange) {
        self.vf.write_range(range).expect("the virtual function writes");
    }
}
