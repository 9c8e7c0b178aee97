//! [`Space`]: an address space of the kernel's with the device in it.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use iommufd_ioctls::IommuFd;
use pagetrail_rig_devices::{MIB, PAGE};
use pagetrail_tracker::conformance::Rig;
use pagetrail_tracker::{
    Access, AttachedDevice, DeviceKind, DeviceTracker, DirtyTracker, Ioas, Iova, IovaRange, KernelIoas,
    Leaves, PageSize, Quiesced, ReportBitmap, TrackerError, WithoutTracker, Witness,
};
use vfio_ioctls::VfioDevice;

use crate::device::Device;
use crate::memory::Memory;

/// An address space, the device attached to it, and memory at its beginning.
pub(crate) struct Space {
    // Goes first: the device must be able to do without the rest.
    pub(crate) attached: AttachedDevice,
    pub(crate) ioas: KernelIoas,
    pub(crate) memory: Memory,
    pub(crate) device: Arc<Device>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The memory has it.
    Written,
    /// The IOMMU stopped it.
    Refused,
}

/// Says that the device does nothing that it is not told to.
#[derive(Debug)]
struct Obedient;

impl Witness for Obedient {
    fn is_quiet(&self) -> bool {
        true
    }
}

impl Space {
    /// Bytes of [`Space::small`]'s memory.
    pub(crate) const LEN: u64 = 64 * MIB;

    /// Tells the device nothing until what is returned is dropped.
    pub(crate) fn quiesce(&self) -> Quiesced {
        self.attached.quiesce(Arc::new(Obedient))
    }

    /// With none of the memory mapped.
    pub(crate) fn empty(device: &Arc<Device>, memory: Memory, leaves: Leaves) -> Result<Self> {
        let ioas = KernelIoas::new(device.iommufd.clone(), leaves)?;
        Self::join(ioas, device, memory)
    }

    /// Brings the device into `ioas`.
    pub(crate) fn join(ioas: KernelIoas, device: &Arc<Device>, memory: Memory) -> Result<Self> {
        let attached = device.join(&ioas)?;
        ensure!(
            attached.tracker().is_some(),
            "the IOMMU has no dirty bits that the kernel uses"
        );
        Ok(Self {
            attached,
            ioas,
            memory,
            device: device.clone(),
        })
    }

    /// With memory mapped in pages of 4 KiB, in two mappings.
    pub(crate) fn small(device: &Arc<Device>) -> Result<Self> {
        let space = Self::empty(device, Memory::small(Self::LEN)?, Leaves::Small)?;
        for half in [range(0, Self::LEN / 2), range(Self::LEN / 2, Self::LEN / 2)] {
            space.map(half, Access::Write)?;
        }
        Ok(space)
    }

    /// Detaches the device, whose page table goes with it, and attaches it again.
    pub(crate) fn reattach(self) -> Result<Self> {
        drop(self.attached);
        let attached = self.ioas.attach(self.device.vfio.clone(), self.device.id)?;
        Ok(Self { attached, ..self })
    }

    /// Maps the memory at `range`, which is also where it is in its file.
    pub(crate) fn map(&self, range: IovaRange, access: Access) -> Result<()> {
        map(&self.ioas, &self.memory, range, access)
    }

    pub(crate) fn tracker(&self) -> &dyn DirtyTracker {
        &**self.ioas.tracker()
    }

    pub(crate) fn start(&self, ranges: &[IovaRange]) -> Result<()> {
        Ok(self.tracker().start(ranges, PageSize::SIZE_4K)?)
    }

    /// The device writes the bytes of `range`. Memory says what became of it.
    pub(crate) fn try_write(&self, range: IovaRange) -> Result<Outcome> {
        outcome_of_write(&self.device, &self.memory, range)
    }

    /// The device writes the bytes of `range`.
    pub(crate) fn write(&self, range: IovaRange) -> Result<()> {
        let outcome = self.try_write(range)?;
        ensure!(
            outcome == Outcome::Written,
            "the IOMMU stopped a write of {range}"
        );
        Ok(())
    }

    /// The device writes a word of each of `pages`.
    pub(crate) fn write_pages(&self, pages: &[u64]) -> Result<()> {
        pages
            .iter()
            .try_for_each(|page| self.write(range(page * PAGE, 4)))
    }

    /// The numbers of the pages of `range` that are reported, and forgotten.
    pub(crate) fn report(&self, range: IovaRange) -> Result<Vec<u64>> {
        read_report(range, |report| self.tracker().read_and_clear(report))
    }

    /// The numbers of the pages of `range` that are due.
    pub(crate) fn peek(&self, range: IovaRange) -> Result<Vec<u64>> {
        read_report(range, |report| self.tracker().peek(report))
    }
}

/// Maps `memory` at `range`, which is also where it is in its file.
pub(crate) fn map(ioas: &KernelIoas, memory: &Memory, range: IovaRange, access: Access) -> Result<()> {
    ioas.map(range, memory.file(), range.start().get(), access)
        .with_context(|| format!("{range} is not mapped"))
}

/// Has the device write the bytes of `range`, which `memory` is mapped at if anything is.
pub(crate) fn outcome_of_write(device: &Device, memory: &Memory, range: IovaRange) -> Result<Outcome> {
    let (start, len) = (range.start().get(), range.len());
    memory.clear(start, len)?;
    device.write(&[bytes(range)])?;
    let found = memory.bytes(start, len)?;
    match found.iter().filter(|byte| **byte != 0).count() as u64 {
        0 => Ok(Outcome::Refused),
        written if written == len => Ok(Outcome::Written),
        written => bail!("of {range} the device wrote {written} bytes"),
    }
}

/// The addresses of the bytes of `range`.
pub(crate) fn bytes(range: IovaRange) -> Range<u64> {
    range.start().get()..range.last().get() + 1
}

/// The bytes from `start` on.
pub(crate) fn range(start: u64, len: u64) -> IovaRange {
    IovaRange::from_len(Iova::new(start), len).expect("a range")
}

/// The numbers of the 4 KiB pages of `range` that `read` reports.
pub(crate) fn read_report(
    range: IovaRange,
    read: impl FnOnce(&mut ReportBitmap<'_>) -> Result<(), TrackerError>,
) -> Result<Vec<u64>> {
    let mut bytes = vec![0; ReportBitmap::required_len(range, PageSize::SIZE_4K)?];
    let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes)?;
    read(&mut report)?;
    let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
    Ok((first..=last)
        .filter(|page| report.is_dirty(Iova::new(page * PAGE)))
        .collect())
}

/// The rig of the library's own suite.
pub(crate) struct SuiteRig(pub(crate) Space);

impl Rig for SuiteRig {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.0.ioas.tracker().clone()
    }

    fn write(&self, range: IovaRange) {
        self.0.write(range).expect("the device writes");
    }
}

/// Prints which tracker a VM would use for the device `id`, and why.
pub(crate) fn explain(name: &str, iommufd: &Arc<IommuFd>, vfio: &Arc<VfioDevice>, id: u32) -> Result<()> {
    let ioas = KernelIoas::new(iommufd.clone(), Leaves::Small)?;
    let attached = ioas.attach(vfio.clone(), id)?;
    let kind = DeviceKind::Passthrough {
        page_table_tracker: attached.candidate(),
        device_tracker: DeviceTracker::candidate(vfio.clone()),
        without_tracker: WithoutTracker::AssumeDirty,
    };
    let explanation = Ioas::new().attach(kind, name)?.explanation().to_string();
    println!("# {}", explanation.replace('\n', "\n# "));
    if let Some(control) = attached.dirty_control() {
        println!("# dirty bits are {control}");
    }
    Ok(())
}
