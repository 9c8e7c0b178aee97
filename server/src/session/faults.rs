//! Faults of a device, put where they belong.

use std::sync::atomic::{AtomicBool, Ordering};

use pagetrail_tracker::Fault as TrackerFault;

use super::features::is_of_migration;
use crate::fault::Fault;
use crate::guest::{DmaFault, DmaSpace};
use crate::host::Binding;

/// What a session breaks itself.
pub(super) struct Broken {
    /// A bit of the migration stream is to be flipped.
    corruption_due: AtomicBool,
    unmigratable: bool,
}

/// Breaks a VM's tracker, and a device's memory access if it is this process's.
pub(super) fn inject(faults: &[Fault], space: &DmaSpace, binding: &Binding) {
    let tracker = binding.ioas().software_tracker();
    for fault in faults {
        match fault {
            Fault::SuppressPage(iova) => tracker.set_fault(TrackerFault::SuppressPage(*iova)),
            Fault::LateReport => tracker.set_fault(TrackerFault::LateReport),
            Fault::NoReaderBarrier => space.inject(DmaFault::NoReaderBarrier),
            Fault::StoreBuffer => space.inject(DmaFault::StoreBuffer),
            Fault::MarkBeforeWrite => space.inject(DmaFault::MarkBeforeWrite),
            Fault::CorruptStream | Fault::NoMigration => {}
        }
    }
}

impl Broken {
    /// What `faults` leave for the session to break.
    pub(super) fn by(faults: &[Fault]) -> Self {
        Self {
            corruption_due: AtomicBool::new(faults.contains(&Fault::CorruptStream)),
            unmigratable: faults.contains(&Fault::NoMigration),
        }
    }

    /// Whether a feature is kept from the client.
    pub(super) fn hides(&self, feature: u32) -> bool {
        self.unmigratable && is_of_migration(feature)
    }

    /// Corrupts the next bytes that are read of the stream, once.
    pub(super) fn corrupt(&self, data: &mut [u8]) {
        let middle = data.len() / 2;
        if let Some(byte) = data.get_mut(middle)
            && self.corruption_due.swap(false, Ordering::Relaxed)
        {
            *byte ^= 1;
        }
    }
}
