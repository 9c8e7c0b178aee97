//! Faults of a device, put where they belong.

use std::sync::atomic::{AtomicBool, Ordering};

use pagetrail_tracker::Fault as TrackerFault;

use crate::fault::Fault;
use crate::guest::{DmaFault, DmaSpace};
use crate::host::Binding;

/// Flips one bit of the migration stream, if asked to.
pub(super) struct Corruption {
    due: AtomicBool,
}

/// Breaks a device's memory access, or its VM's tracker. The stream is the session's to break.
pub(super) fn inject(faults: &[Fault], space: &DmaSpace, binding: &Binding) -> Corruption {
    let tracker = binding.ioas().software_tracker();
    for fault in faults {
        match fault {
            Fault::SuppressPage(iova) => tracker.set_fault(TrackerFault::SuppressPage(*iova)),
            Fault::LateReport => tracker.set_fault(TrackerFault::LateReport),
            Fault::NoReaderBarrier => space.inject(DmaFault::NoReaderBarrier),
            Fault::StoreBuffer => space.inject(DmaFault::StoreBuffer),
            Fault::MarkBeforeWrite => space.inject(DmaFault::MarkBeforeWrite),
            Fault::CorruptStream => {}
        }
    }
    Corruption {
        due: AtomicBool::new(faults.contains(&Fault::CorruptStream)),
    }
}

impl Corruption {
    /// Corrupts the next bytes that are read of the stream, once.
    pub(super) fn apply(&self, data: &mut [u8]) {
        let middle = data.len() / 2;
        if let Some(byte) = data.get_mut(middle)
            && self.due.swap(false, Ordering::Relaxed)
        {
            *byte ^= 1;
        }
    }
}
