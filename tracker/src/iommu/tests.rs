//! The address space and its tracker, on a kernel in memory.

mod life;
mod property;
mod race;

use std::fs::File;
use std::sync::Arc;

use super::model::{Call, Fault, Machine, Model, ModelDevice, PAGE};
use super::{Access, AttachedDevice, DirtyControl, IommuTracker, KernelIoas, Leaves, Quiesced};
use crate::conformance::{Rig, check_all};
use crate::{DirtyTracker, IovaRange, PageSize, ReportBitmap, TrackerError};

/// An address space, and a device attached to it.
struct Bench {
    machine: Arc<Machine>,
    ioas: Arc<KernelIoas>,
    device: Arc<ModelDevice>,
    attached: Option<AttachedDevice>,
}

impl Bench {
    fn new(control: DirtyControl, leaves: Leaves) -> Self {
        let machine = Machine::new(Some(control));
        let ioas = KernelIoas::on(Box::new(Model(machine.clone())), leaves, PAGE).unwrap();
        let ioas = Arc::new(ioas);
        let device = ModelDevice::new(&machine, 1);
        let attached = ioas.attach(device.clone(), 1).unwrap();
        Self {
            machine,
            ioas,
            device,
            attached: Some(attached),
        }
    }

    fn small() -> Self {
        Self::new(DirtyControl::Global, Leaves::Small)
    }

    fn map(&self, range: IovaRange) {
        map(&self.ioas, range, Access::Write);
    }

    fn start(&self, ranges: &[IovaRange]) {
        self.tracker().start(ranges, PageSize::SIZE_4K).unwrap();
    }

    fn tracker(&self) -> &Arc<IommuTracker> {
        self.ioas.tracker()
    }

    fn attached(&self) -> &AttachedDevice {
        self.attached.as_ref().expect("the device is attached")
    }

    fn quiesce(&self) -> Quiesced {
        self.attached().quiesce(self.device.clone())
    }

    /// The pages of `range` that are reported, by number.
    fn report(&self, range: IovaRange) -> Vec<u64> {
        read(range, |report| self.tracker().read_and_clear(report)).unwrap()
    }

    fn write(&self, pages: impl IntoIterator<Item = u64>) {
        for page in pages {
            assert!(self.device.write(page, 1), "page {page} can be written");
        }
    }
}

fn map(ioas: &KernelIoas, range: IovaRange, access: Access) {
    let file = File::open("/dev/null").unwrap();
    ioas.map(range, &file, 0, access).unwrap();
}

fn pages(first: u64, count: u64) -> IovaRange {
    IovaRange::of(first * PAGE, (first + count) * PAGE - 1)
}

/// The numbers of the pages that `read` reports.
fn read(
    range: IovaRange,
    read: impl FnOnce(&mut ReportBitmap<'_>) -> Result<(), TrackerError>,
) -> Result<Vec<u64>, TrackerError> {
    let mut bytes = vec![0; ReportBitmap::required_len(range, PageSize::SIZE_4K).unwrap()];
    let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes).unwrap();
    read(&mut report)?;
    let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
    Ok((first..=last)
        .filter(|page| report.is_dirty(crate::Iova::new(page * PAGE)))
        .collect())
}

impl Rig for Bench {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.ioas.tracker().clone()
    }

    fn write(&self, range: IovaRange) {
        Bench::write(self, range.start().get() / PAGE..=range.last().get() / PAGE);
    }
}

/// A bench with the first 64 MiB mapped, in parts.
fn conformance_rig(control: DirtyControl) -> Bench {
    let bench = Bench::new(control, Leaves::Small);
    for quarter in 0..4 {
        bench.map(pages(quarter * 4096, 4096));
    }
    bench
}

#[test]
fn an_iommu_that_is_switched_keeps_every_promise() {
    check_all(|| conformance_rig(DirtyControl::Global));
}

#[test]
fn an_iommu_controlled_by_entry_keeps_every_promise() {
    check_all(|| conformance_rig(DirtyControl::PerPte));
}

#[test]
fn the_suite_catches_a_dropped_bit_and_bits_cleared_before_they_are_read() {
    for fault in [Fault::DropPage(3), Fault::ClearFirst] {
        let broken = || {
            let bench = conformance_rig(DirtyControl::Global);
            bench.machine.set_fault(fault);
            bench
        };
        assert!(
            std::panic::catch_unwind(|| check_all(broken)).is_err(),
            "{fault:?} passes"
        );
    }
}
