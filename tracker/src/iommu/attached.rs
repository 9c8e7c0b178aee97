//! [`AttachedDevice`]: a device's hold on an address space of the kernel's.

use std::fmt;
use std::sync::Arc;

use iommufd_ioctls::AttachHwpt;

use super::kernel::DirtyControl;
use super::page_tables::DeviceKey;
use super::state::Core;
use super::tracker::IommuTracker;
use crate::Candidate;

/// Knows whether a device that was [quiesced](AttachedDevice::quiesce) has stayed so.
///
/// A device leaves such a state without being led, too: whoever resets it has it run, and it may fail.
pub trait Witness: Send + Sync + fmt::Debug {
    /// Whether the device makes no DMA still. Once it may have made some, the answer is no until [`Quiesced`] is dropped.
    ///
    /// Called with the address space locked: by whoever unmaps, and for every unmap.
    fn is_quiet(&self) -> bool;
}

/// A device attached to a [`KernelIoas`](super::KernelIoas), until this is dropped. Its memory stays mapped as long.
pub struct AttachedDevice {
    core: Arc<Core>,
    device: Arc<dyn AttachHwpt>,
    key: DeviceKey,
    tracker: Option<(Arc<IommuTracker>, DirtyControl)>,
}

impl AttachedDevice {
    pub(super) fn new(
        core: Arc<Core>,
        device: Arc<dyn AttachHwpt>,
        key: DeviceKey,
        tracker: Option<(Arc<IommuTracker>, DirtyControl)>,
    ) -> Self {
        Self {
            core,
            device,
            key,
            tracker,
        }
    }

    /// The tracker of what the device writes, the same for all devices of the address space; `None` if its IOMMU has no
    /// dirty bits.
    pub fn tracker(&self) -> Option<&Arc<IommuTracker>> {
        self.tracker.as_ref().map(|(tracker, _)| tracker)
    }

    /// The tracker, to select from.
    pub fn candidate(&self) -> Candidate {
        match &self.tracker {
            Some((tracker, _)) => Candidate::Tracker(tracker.clone()),
            None => Candidate::Missing(
                "the device's IOMMU has no dirty bits, or the kernel does not use them".into(),
            ),
        }
    }

    /// How the device's IOMMU records writes, if it does.
    pub fn dirty_control(&self) -> Option<DirtyControl> {
        self.tracker.as_ref().map(|(_, control)| *control)
    }

    /// Says that the device makes no DMA from now on until what is returned is dropped.
    ///
    /// To be called once the device has stopped, as by a migration state that has no DMA, and to be dropped before it is led
    /// anywhere else. While every device is quiesced, and `witness` of each says so, what is unmapped is exactly as due as it was
    /// written.
    #[must_use = "the device counts as one that writes as soon as it is dropped"]
    pub fn quiesce(&self, witness: Arc<dyn Witness>) -> Quiesced {
        let held = Arc::clone(&witness);
        self.core.state.lock().page_tables.quiesce(self.key, held);
        Quiesced {
            core: self.core.clone(),
            key: self.key,
            witness,
        }
    }
}

impl fmt::Debug for AttachedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttachedDevice")
            .field("key", &self.key)
            .field("dirty_control", &self.dirty_control())
            .finish_non_exhaustive()
    }
}

impl Drop for AttachedDevice {
    /// The device goes first, so that nobody writes when the last bits of its page table are read.
    fn drop(&mut self) {
        let mut state = self.core.state.lock();
        if let Err(error) = self.device.detach_hwpt() {
            // It keeps its page table, which goes on being read.
            tracing::error!(%error, "a device is not detached from its address space");
            return;
        }
        let Some(page_table) = state.page_tables.remove_device(self.key) else {
            return;
        };
        let page_table = self.core.keep_bits_of(&state, page_table);
        drop(state);
        // The kernel takes out of it all that is mapped, while nobody waits.
        self.core.destroy(page_table);
    }
}

/// A device makes no DMA as long as this exists.
#[derive(Debug)]
pub struct Quiesced {
    core: Arc<Core>,
    key: DeviceKey,
    witness: Arc<dyn Witness>,
}

impl Drop for Quiesced {
    fn drop(&mut self) {
        self.core.state.lock().page_tables.resume(self.key, &self.witness);
    }
}
