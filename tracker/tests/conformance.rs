//! Every tracker passes the suite: the software tracker in each of its forms, and fakes of the others.
#![cfg(not(loom))]

mod common;

use std::sync::Arc;

use common::FakeTracker;
use pagetrail_tracker::conformance::{Rig, check_all};
use pagetrail_tracker::{Barrier, DirtyTracker, IovaRange, SoftwareTracker};

struct Software(Arc<SoftwareTracker>);

impl Rig for Software {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.0.clone()
    }

    fn write(&self, range: IovaRange) {
        self.0.mark(range);
    }
}

struct Hardware(Arc<FakeTracker>);

impl Rig for Hardware {
    fn tracker(&self) -> Arc<dyn DirtyTracker> {
        self.0.clone()
    }

    fn write(&self, range: IovaRange) {
        self.0.write(range);
    }
}

#[test]
fn the_software_tracker_keeps_every_promise() {
    check_all(|| Software(Arc::new(SoftwareTracker::new().unwrap())));
}

#[test]
fn the_software_tracker_keeps_every_promise_without_membarrier() {
    check_all(|| {
        Software(Arc::new(
            SoftwareTracker::builder()
                .barrier(Barrier::Fences)
                .build()
                .unwrap(),
        ))
    });
}

#[test]
fn an_iommu_that_tracks_globally_keeps_every_promise() {
    check_all(|| Hardware(FakeTracker::global_iommu()));
}

#[test]
fn an_iommu_that_tracks_per_pte_keeps_every_promise() {
    check_all(|| Hardware(FakeTracker::per_pte_iommu()));
}

#[test]
fn a_device_with_limits_keeps_every_promise() {
    check_all(|| Hardware(FakeTracker::device()));
}

/// Without this the suite might pass anything.
#[test]
fn the_suite_catches_a_tracker_that_ignores_a_page() {
    use pagetrail_tracker::{Fault, Iova};
    let broken = || {
        let tracker = Arc::new(SoftwareTracker::new().unwrap());
        tracker.set_fault(Fault::SuppressPage(Iova::new(3 * 4096)));
        Software(tracker)
    };
    assert!(std::panic::catch_unwind(|| check_all(broken)).is_err());
}
