//! Selection, the union of trackers, the reader group and observers.
#![cfg(not(loom))]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use WithoutTracker::{AssumeDirty, BlockLog, Refuse};
use common::{FakeTracker, MIB, pages, range};
use pagetrail_tracker::{
    Attachment, Candidate, DeviceKind, DirtyTracker, Ioas, Iova, IovaRange, LogError, PageSize, Selection,
    SelectionError, WithoutTracker,
};

const PAGE: PageSize = PageSize::SIZE_4K;

fn passthrough(
    iommu: Option<&Arc<FakeTracker>>,
    device: Option<&Arc<FakeTracker>>,
    otherwise: WithoutTracker,
) -> DeviceKind {
    let candidate = |fake: Option<&Arc<FakeTracker>>, missing: &str| match fake {
        Some(fake) => Candidate::Tracker(fake.clone() as Arc<dyn DirtyTracker>),
        None => Candidate::Missing(missing.into()),
    };
    DeviceKind::Passthrough {
        page_table_tracker: candidate(iommu, "no dirty bits"),
        device_tracker: candidate(device, "no DMA log"),
        without_tracker: otherwise,
    }
}

fn emulated(ioas: &Arc<Ioas>) -> Attachment {
    ioas.attach(DeviceKind::Emulated, "emulated").unwrap()
}

fn report(device: &Attachment, range: IovaRange) -> Result<Vec<u64>, LogError> {
    pages(range, |bitmap| device.report(bitmap))
}

#[test]
fn the_tracker_of_a_device_is_the_one_of_the_selection_table() {
    let (iommu, device) = (FakeTracker::global_iommu(), FakeTracker::device());
    let ioas = Ioas::new();
    let select = |kind| {
        ioas.attach(kind, "device")
            .map(|attachment| attachment.explanation().selection())
    };

    assert_eq!(select(DeviceKind::Emulated).unwrap(), Selection::Software);
    for without in [Refuse, BlockLog, AssumeDirty] {
        assert_eq!(
            select(passthrough(Some(&iommu), None, without)).unwrap(),
            Selection::PageTable
        );
        assert_eq!(
            select(passthrough(Some(&iommu), Some(&device), without)).unwrap(),
            Selection::PageTable
        );
        assert_eq!(
            select(passthrough(None, Some(&device), without)).unwrap(),
            Selection::Device
        );
    }
    assert_eq!(
        select(passthrough(None, None, AssumeDirty)).unwrap(),
        Selection::AssumeDirty
    );
    assert_eq!(
        select(passthrough(None, None, BlockLog)).unwrap(),
        Selection::Untracked
    );
    let refused = select(passthrough(None, None, Refuse)).unwrap_err();
    assert!(matches!(&refused, SelectionError::NoTracker { device, .. } if device == "device"));
    assert!(
        refused
            .to_string()
            .contains("neither its page table (no dirty bits) nor the device itself (no DMA log)"),
        "{refused}"
    );
}

#[test]
fn the_choice_of_a_tracker_is_explained() {
    let ioas = Ioas::new();
    let own = FakeTracker::device();
    let device = ioas
        .attach(passthrough(None, Some(&own), Refuse), "0000:01:00.1")
        .unwrap();
    assert_eq!(
        device.explanation().to_string(),
        "0000:01:00.1: the device's own tracker, because its page table has none\n  \
         its page table: none: no dirty bits\n  \
         its own: device tracker, pages of 64 KiB, 2 MiB, switched on by range"
    );
    let why = std::io::Error::other(std::io::Error::from_raw_os_error(25));
    assert!(matches!(
        Candidate::missing(&why),
        Candidate::Missing(reason) if reason.contains("Inappropriate ioctl")
    ));
}

#[test]
fn an_explanation_outlives_the_trackers_that_it_is_about() {
    let ioas = Ioas::new();
    for with_iommu in [true, false] {
        let (iommu, own) = (FakeTracker::global_iommu(), FakeTracker::device());
        let device = ioas
            .attach(
                passthrough(with_iommu.then_some(&iommu), Some(&own), Refuse),
                "vf",
            )
            .unwrap();
        let explanation = device.explanation().clone();
        drop(device);
        let trackers = [iommu, own].map(|tracker| Arc::downgrade(&tracker));
        assert!(
            trackers.iter().all(|tracker| tracker.upgrade().is_none()),
            "{explanation}"
        );
    }
}

#[test]
fn an_emulated_device_uses_the_software_tracker_beside_an_iommu_tracker() {
    let ioas = Ioas::new();
    let iommu = FakeTracker::global_iommu();
    let _assigned = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf")
        .unwrap();
    assert_eq!(emulated(&ioas).explanation().selection(), Selection::Software);
}

#[test]
fn a_report_is_the_union_of_all_trackers() {
    let ioas = Ioas::new();
    let (iommu, own) = (FakeTracker::per_pte_iommu(), FakeTracker::device());
    let first = emulated(&ioas);
    let _second = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf0")
        .unwrap();
    let _third = ioas.attach(passthrough(None, Some(&own), Refuse), "vf1").unwrap();
    first.start(&[range(0, MIB)], PAGE).unwrap();
    ioas.software_tracker().mark(range(0, 1));
    iommu.write(range(5 * 4096, 1));
    own.write(range(64 * 4096, 1));
    // The device's own pages are 64 KiB.
    let expected: Vec<u64> = [0, 5].into_iter().chain(64..80).collect();
    assert_eq!(report(&first, range(0, MIB)).unwrap(), expected);
    assert!(report(&first, range(0, MIB)).unwrap().is_empty());
}

#[test]
fn a_device_that_nothing_tracks_makes_every_page_dirty_in_every_report() {
    let ioas = Ioas::new();
    let device = ioas
        .attach(passthrough(None, None, WithoutTracker::AssumeDirty), "vf")
        .unwrap();
    device.start(&[], PAGE).unwrap();
    for _ in 0..2 {
        assert_eq!(report(&device, range(0, MIB)).unwrap().len(), 256);
    }
}

#[test]
fn beside_a_device_that_nothing_tracks_no_log_starts_and_no_log_gets_one() {
    let ioas = Ioas::new();
    let device = emulated(&ioas);
    let untracked = || ioas.attach(passthrough(None, None, BlockLog), "vf");
    let first = untracked().unwrap();
    for attachment in [&device, &first] {
        let refused = attachment.start(&[], PAGE).unwrap_err();
        assert!(
            matches!(&refused, LogError::Untracked(device) if &**device == "vf"),
            "{refused}"
        );
    }
    drop(first);
    device.start(&[], PAGE).unwrap();
    assert!(matches!(
        untracked().unwrap_err(),
        SelectionError::NotStarted { .. }
    ));
    ioas.software_tracker().mark(range(0, 1));
    assert_eq!(report(&device, range(0, MIB)).unwrap(), [0]);
}

#[test]
fn a_tracker_of_several_devices_is_read_once_and_stays_until_the_last_one_leaves() {
    let ioas = Ioas::new();
    let iommu = FakeTracker::global_iommu();
    let attach = |name| {
        ioas.attach(passthrough(Some(&iommu), None, Refuse), name)
            .unwrap()
    };
    let (first, second) = (attach("vf0"), attach("vf1"));
    first.start(&[], PAGE).unwrap();
    drop(second);
    iommu.write(range(0, 1));
    assert_eq!(report(&first, range(0, MIB)).unwrap(), [0]);
}

#[test]
fn what_a_detached_device_wrote_is_still_reported() {
    let ioas = Ioas::new();
    let (stays, own) = (emulated(&ioas), FakeTracker::device());
    let leaves = ioas.attach(passthrough(None, Some(&own), Refuse), "vf").unwrap();
    stays.start(&[range(0, MIB)], PAGE).unwrap();
    own.write(range(0, 1));
    drop(leaves);
    assert!(own.started().is_empty());
    assert_eq!(
        report(&stays, range(0, MIB)).unwrap(),
        (0..16).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_gathered_is_reported_though_its_tracker_has_forgotten_it() {
    let ioas = Ioas::new();
    let (stays, own) = (emulated(&ioas), FakeTracker::device());
    let reset = ioas.attach(passthrough(None, Some(&own), Refuse), "vf").unwrap();
    stays.start(&[range(0, MIB)], PAGE).unwrap();
    own.write(range(0, 1));
    reset.gather();
    own.forget();
    drop(reset);
    assert_eq!(
        report(&stays, range(0, MIB)).unwrap(),
        (0..16).collect::<Vec<_>>()
    );
}

#[test]
fn a_device_attached_while_the_log_runs_is_tracked_at_once() {
    let ioas = Ioas::new();
    let (first, iommu) = (emulated(&ioas), FakeTracker::per_pte_iommu());
    first.start(&[range(0, MIB)], PAGE).unwrap();
    let _late = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf")
        .unwrap();
    iommu.write(range(0, 1));
    assert_eq!(report(&first, range(0, MIB)).unwrap(), [0]);
}

#[test]
fn a_device_that_cannot_join_a_running_log_is_refused() {
    let ioas = Ioas::new();
    let (first, iommu) = (emulated(&ioas), FakeTracker::per_pte_iommu());
    first.start(&[range(0, MIB)], PAGE).unwrap();
    iommu.refuses.store(true, Ordering::Relaxed);
    let late = ioas.attach(passthrough(Some(&iommu), None, Refuse), "vf");
    assert!(matches!(late, Err(SelectionError::NotStarted { .. })));
}

#[test]
fn a_tracker_with_few_ranges_tracks_all_that_is_asked_for() {
    let ioas = Ioas::new();
    let own = FakeTracker::device();
    let device = ioas.attach(passthrough(None, Some(&own), Refuse), "vf").unwrap();
    let asked: Vec<IovaRange> = (0..10).map(|n| range(n * n * MIB, MIB / 2)).collect();
    device.start(&asked, PAGE).unwrap();
    assert_eq!(own.started().len(), 3);
    for part in &asked {
        assert!(own.started().iter().any(|started| started.contains(part)));
        own.write(range(part.start().get(), 1));
        assert_eq!(report(&device, *part).unwrap().len(), 16);
    }
}

#[test]
fn a_tracker_that_must_restart_for_new_ranges_reports_all_it_may_have_missed() {
    let ioas = Ioas::new();
    let (own, other) = (FakeTracker::device(), emulated(&ioas));
    let device = ioas.attach(passthrough(None, Some(&own), Refuse), "vf").unwrap();
    device.start(&[range(0, MIB)], PAGE).unwrap();
    assert!(report(&device, range(0, MIB)).unwrap().is_empty());
    other.start(&[range(4 * MIB, MIB)], PAGE).unwrap();
    assert_eq!(report(&device, range(0, MIB)).unwrap().len(), 256);
    assert!(report(&device, range(4 * MIB, MIB)).unwrap().is_empty());
    assert!(report(&device, range(0, MIB)).unwrap().is_empty());
}

#[test]
fn no_report_succeeds_after_a_tracker_that_did_not_stop_for_new_ranges() {
    let ioas = Ioas::new();
    let (own, other) = (FakeTracker::device(), emulated(&ioas));
    let device = ioas.attach(passthrough(None, Some(&own), Refuse), "vf").unwrap();
    device.start(&[range(0, MIB)], PAGE).unwrap();
    own.write(range(0, 1));
    own.sticks.store(true, Ordering::Relaxed);
    other.start(&[range(4 * MIB, MIB)], PAGE).unwrap_err();
    own.sticks.store(false, Ordering::Relaxed);
    // The tracker would start again, and without the page.
    other.start(&[range(4 * MIB, MIB)], PAGE).unwrap_err();
    report(&device, range(0, MIB)).unwrap_err();
    device.stop().unwrap();
    device.start(&[range(0, MIB)], PAGE).unwrap();
    own.write(range(0, 1));
    assert_eq!(report(&device, range(0, MIB)).unwrap().len(), 16);
}

#[test]
fn no_report_succeeds_between_a_failed_read_and_a_new_start() {
    let ioas = Ioas::new();
    let (first, iommu) = (emulated(&ioas), FakeTracker::global_iommu());
    let second = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf")
        .unwrap();
    first.start(&[], PAGE).unwrap();
    second.start(&[], PAGE).unwrap();
    ioas.software_tracker().mark(range(0, 1));
    iommu.fails.store(true, Ordering::Relaxed);
    assert!(matches!(
        report(&first, range(0, MIB)),
        Err(LogError::TrackerFailed { .. })
    ));
    iommu.fails.store(false, Ordering::Relaxed);
    // The software tracker's page has been taken and thrown away: a report without it would lose it.
    assert!(matches!(
        report(&first, range(0, MIB)),
        Err(LogError::TrackerFailed { .. })
    ));
    first.stop().unwrap();
    assert!(
        matches!(first.start(&[], PAGE), Err(LogError::TrackerFailed { .. })),
        "one device alone does not start anew"
    );
    second.stop().unwrap();
    first.start(&[], PAGE).unwrap();
    assert!(report(&first, range(0, MIB)).unwrap().is_empty());
    ioas.software_tracker().mark(range(4096, 1));
    assert_eq!(report(&first, range(0, MIB)).unwrap(), [1]);
}

#[test]
fn no_report_succeeds_after_a_device_that_did_not_stop_until_a_new_start() {
    let ioas = Ioas::new();
    let (device, sibling) = (emulated(&ioas), emulated(&ioas));
    device.give_up();
    sibling.start(&[], PAGE).unwrap();
    device.start(&[], PAGE).unwrap();
    assert!(
        report(&sibling, range(0, MIB)).is_ok(),
        "given up before the log began"
    );

    device.give_up();
    assert!(matches!(
        report(&sibling, range(0, MIB)),
        Err(LogError::DeviceFailed(_))
    ));
    drop(device);
    assert!(matches!(
        report(&sibling, range(0, MIB)),
        Err(LogError::DeviceFailed(_))
    ));

    sibling.stop().unwrap();
    sibling.start(&[], PAGE).unwrap();
    assert!(report(&sibling, range(0, MIB)).is_ok(), "a new log holds");
}

#[test]
fn a_failed_read_by_an_observer_is_not_hidden_from_the_migration() {
    let ioas = Ioas::new();
    let iommu = FakeTracker::global_iommu();
    let device = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf")
        .unwrap();
    device.start(&[], PAGE).unwrap();
    let observer = ioas.observer(&[], PAGE).unwrap();
    iommu.write(range(0, 1));
    iommu.fails.store(true, Ordering::Relaxed);
    assert!(pages(range(0, MIB), |bitmap| observer.read_and_clear(bitmap)).is_err());
    iommu.fails.store(false, Ordering::Relaxed);
    assert!(matches!(
        report(&device, range(0, MIB)),
        Err(LogError::TrackerFailed { .. })
    ));
}

#[test]
fn a_start_that_one_tracker_refuses_changes_nothing() {
    let ioas = Ioas::new();
    let (first, iommu) = (emulated(&ioas), FakeTracker::per_pte_iommu());
    let second = ioas
        .attach(passthrough(Some(&iommu), None, Refuse), "vf")
        .unwrap();
    first.start(&[range(0, MIB)], PAGE).unwrap();
    ioas.software_tracker().mark(range(0, 1));
    iommu.refuses.store(true, Ordering::Relaxed);
    assert!(matches!(
        second.start(&[range(MIB, MIB)], PAGE),
        Err(LogError::TrackerFailed { .. })
    ));
    assert!(!second.is_started());
    assert!(matches!(
        report(&first, range(0, 2 * MIB)),
        Err(LogError::RangeNotStarted(_))
    ));
    assert_eq!(report(&first, range(0, MIB)).unwrap(), [0]);
}

#[test]
fn a_page_is_handed_over_once_for_all_devices() {
    let ioas = Ioas::new();
    let (first, second) = (emulated(&ioas), emulated(&ioas));
    first.start(&[range(0, MIB)], PAGE).unwrap();
    ioas.software_tracker().mark(range(0, 1));
    second.start(&[range(0, 2 * MIB)], PAGE).unwrap();
    assert_eq!(
        report(&second, range(0, 2 * MIB)).unwrap(),
        [0],
        "a later start clears nothing that was started"
    );
    assert!(report(&first, range(0, MIB)).unwrap().is_empty());
    first.stop().unwrap();
    ioas.software_tracker().mark(range(4096, 1));
    assert_eq!(
        report(&second, range(0, MIB)).unwrap(),
        [1],
        "the log ends with the last device"
    );
    drop(second);
    first.start(&[range(0, MIB)], PAGE).unwrap();
    assert!(
        report(&first, range(0, MIB)).unwrap().is_empty(),
        "the first start clears"
    );
}

#[test]
fn an_observer_takes_nothing_from_the_migration_nor_the_migration_from_it() {
    let ioas = Ioas::new();
    let device = emulated(&ioas);
    let observer = ioas.observer(&[range(0, MIB)], PAGE).unwrap();
    ioas.software_tracker().mark(range(0, 1));
    device.start(&[range(0, MIB)], PAGE).unwrap();
    assert!(
        report(&device, range(0, MIB)).unwrap().is_empty(),
        "the first start clears"
    );
    ioas.software_tracker().mark(range(4096, 1));
    assert_eq!(
        pages(range(0, MIB), |bitmap| observer.peek(bitmap)).unwrap(),
        [0, 1]
    );
    assert_eq!(
        pages(range(0, MIB), |bitmap| observer.read_and_clear(bitmap)).unwrap(),
        [0, 1]
    );
    assert_eq!(report(&device, range(0, MIB)).unwrap(), [1]);
    ioas.software_tracker().mark(range(8192, 1));
    drop(observer);
    assert_eq!(report(&device, range(0, MIB)).unwrap(), [2]);
}

#[test]
fn what_cannot_be_started_or_read_says_why() {
    let ioas = Ioas::new();
    let device = emulated(&ioas);
    assert!(matches!(
        report(&device, range(0, MIB)),
        Err(LogError::NotStarted)
    ));
    assert!(matches!(device.stop(), Err(LogError::NotStarted)));
    let many: Vec<IovaRange> = (0..1025).map(|n| range(n * MIB, 4096)).collect();
    assert!(matches!(
        device.start(&many, PAGE),
        Err(LogError::TooManyRanges { asked: 1025 })
    ));
    assert!(matches!(
        device.start(&[range(0, MIB), range(4096, 1)], PAGE),
        Err(LogError::BadRanges(_))
    ));
    device.start(&many[..1024], PAGE).unwrap();
    assert!(matches!(device.start(&[], PAGE), Err(LogError::AlreadyStarted)));
    assert!(matches!(
        report(&device, range(0, MIB)),
        Err(LogError::RangeNotStarted(_))
    ));
    drop(device);
    let whole = emulated(&ioas);
    whole.start(&[], PAGE).unwrap();
    ioas.software_tracker().mark_page(Iova::new((1 << 52) - 1));
    assert_eq!(report(&whole, range((1 << 52) - MIB, MIB)).unwrap(), [255]);
}

#[test]
fn a_log_that_outgrows_its_memory_is_coarse_and_loses_nothing() {
    let tracker = pagetrail_tracker::SoftwareTracker::builder()
        .exact_bytes(256 * MIB)
        .build()
        .unwrap();
    let ioas = Ioas::with_software_tracker(Arc::new(tracker));
    let device = emulated(&ioas);
    device.start(&[], PAGE).unwrap();
    let written: Vec<u64> = (0..1000).map(|n| (n << 34) + 4096 * n).collect();
    for _ in 0..2 {
        for &at in &written {
            ioas.software_tracker().mark(range(at, 1));
        }
        for &at in &written {
            let around = range(at & !(128 * MIB - 1), 128 * MIB);
            assert!(
                report(&device, around)
                    .unwrap()
                    .contains(&((at & (128 * MIB - 1)) / 4096))
            );
            assert!(report(&device, around).unwrap().is_empty());
        }
    }
}
