//! The device tracker's side.

use std::sync::Arc;

use anyhow::Result;
use pagetrail_rig_devices::PAGE;
use pagetrail_rig_devices::vf::Writes;
use pagetrail_tracker::{Access, AttachedDevice, DeviceTracker, DirtyTracker, KernelIoas, Leaves, PageSize};

use super::{MEMORY, Reading, START, Side, starts};
use crate::memory::Memory;
use crate::mlx5::Vf;
use crate::space::range;

/// An address space whose virtual function logs what it writes.
pub(super) struct Logged {
    tracker: DeviceTracker,
    // Goes before the address space: the virtual function must be able to do without.
    _attached: AttachedDevice,
    _ioas: KernelIoas,
    vf: Arc<Vf>,
    reading: Reading,
}

impl Logged {
    pub(super) fn new(vf: &Arc<Vf>, len: u64) -> Result<Self> {
        vf.reset();
        let memory = Memory::small(MEMORY)?;
        let ioas = KernelIoas::new(vf.iommufd.clone(), Leaves::Small)?;
        let attached = ioas.attach(vf.vfio.clone(), vf.id)?;
        let reading = Reading::of(len)?;
        for start in starts(reading.all, MEMORY) {
            ioas.map(range(start, MEMORY), memory.file(), 0, Access::Write)?;
        }
        let tracker = DeviceTracker::new(vf.vfio.clone())?;
        tracker.start(&[reading.all], PageSize::SIZE_4K)?;
        Ok(Self {
            tracker,
            _attached: attached,
            _ioas: ioas,
            vf: vf.clone(),
            reading,
        })
    }
}

impl Side for Logged {
    fn write(&mut self, pages: u64) -> Result<()> {
        self.vf.write(Writes {
            start: START,
            stride: self.reading.all.len() / PAGE / pages * PAGE,
            len: 8,
            count: pages,
            value: 1,
            interval: None,
        })
    }

    fn read(&mut self, pages: u64) -> Result<f64> {
        self.reading.time(&self.tracker, pages)
    }
}
