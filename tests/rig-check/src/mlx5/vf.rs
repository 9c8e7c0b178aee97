//! [`Vf`]: a virtual function that writes memory when it is told to.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use iommufd_ioctls::IommuFd;
use pagetrail_rig_devices::vf::{self, Fault, Reporting, Writes};
use pagetrail_rig_devices::{Completions, Kind, Outcome, PAGE, Registers};
use pagetrail_tracker::IovaRange;
use vfio_ioctls::VfioDevice;

use crate::device::bind;
use crate::registers::Bar;
use crate::space::bytes;

/// A virtual function, bound to an iommufd.
pub(crate) struct Vf {
    pub(crate) iommufd: Arc<IommuFd>,
    pub(crate) vfio: Arc<VfioDevice>,
    /// What the iommufd calls it.
    pub(crate) id: u32,
    bar: Bar,
    /// One order is given at a time.
    orders: Mutex<()>,
}

impl Vf {
    /// Binds the virtual function at `address`, which `mlx5_vfio_pci` has, to the iommufd.
    pub(crate) fn open(iommufd: &Arc<IommuFd>, address: &str) -> Result<Self> {
        let (vfio, id) = bind(iommufd, address)?;
        let bar = Bar::of(&vfio);
        vf::ensure_rig(&mut bar.clone()).with_context(|| address.to_owned())?;
        Ok(Self {
            iommufd: iommufd.clone(),
            vfio,
            id,
            bar,
            orders: Mutex::default(),
        })
    }

    /// Its registers, which always answer.
    fn with<T>(&self, access: impl FnOnce(&mut Bar) -> Result<T>) -> T {
        access(&mut self.bar.clone()).expect("registers answer")
    }

    /// Makes it as it is when it is new, faults included.
    pub(crate) fn reset(&self) {
        self.vfio.reset();
        self.bar.master_the_bus();
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.with(|bar| vf::set_faults(bar, &[fault]));
    }

    pub(crate) fn clear_faults(&self) {
        self.with(|bar| vf::set_faults(bar, &[]));
    }

    pub(crate) fn set_reporting(&self, reporting: Reporting) {
        self.with(|bar| vf::set_reporting(bar, reporting));
    }

    /// Orders writes, which go on meanwhile if they have an interval.
    pub(crate) fn begin(&self, writes: Writes) -> Result<()> {
        let _one_at_a_time = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        vf::begin(&mut self.bar.clone(), &writes)
    }

    /// Does all of the writes.
    pub(crate) fn write(&self, writes: Writes) -> Result<()> {
        self.begin(writes)?;
        self.finish()
    }

    /// Writes the bytes of `range`.
    pub(crate) fn write_range(&self, range: IovaRange) -> Result<()> {
        let _one_at_a_time = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut engine = Kind::Vf.engine(Completions::Quiet);
        written(engine.write(&mut self.bar.clone(), &[bytes(range)])?)
    }

    /// Writes a word of each of `count` pages, from `first` on.
    pub(crate) fn write_pages_from(&self, first: u64, count: u64) -> Result<()> {
        self.write(Writes {
            start: first * PAGE,
            stride: PAGE,
            len: 8,
            count,
            value: 1,
            interval: None,
        })
    }

    /// Waits for the end of what was begun.
    pub(crate) fn finish(&self) -> Result<()> {
        written(vf::finish(&mut self.bar.clone())?)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.with(|bar| vf::is_busy(bar))
    }

    /// Writes that are left to be done.
    pub(crate) fn left(&self) -> u64 {
        self.with(|bar| vf::left(bar))
    }

    /// Writes done since the last reset, by this virtual function or the one that its state was taken from.
    pub(crate) fn writes(&self) -> u64 {
        self.with(|bar| vf::writes(bar))
    }

    /// Eight bytes of its own memory.
    pub(crate) fn memory(&self, offset: u64) -> u64 {
        self.with(|bar| bar.read64(vf::MEMORY + offset))
    }

    pub(crate) fn set_memory(&self, offset: u64, value: u64) {
        self.with(|bar| bar.write64(vf::MEMORY + offset, value));
    }
}

fn written(outcome: Outcome) -> Result<()> {
    ensure!(
        outcome == Outcome::Written,
        "the IOMMU stopped the virtual function"
    );
    Ok(())
}
