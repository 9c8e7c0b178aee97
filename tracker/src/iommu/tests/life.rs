//! What happens to bits when mappings, devices and page tables come and go.

use std::time::Duration;

use super::*;
use crate::iommu::IommuError;
use crate::iommu::model::LARGE;

#[test]
fn what_is_unmapped_while_a_device_can_write_is_due_as_a_whole() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.map(pages(4, 4));
    bench.start(&[pages(0, 100)]);
    bench.write([1]);
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert_eq!(bench.report(pages(0, 100)), [0, 1, 2, 3]);
    assert!(bench.report(pages(0, 100)).is_empty());
}

#[test]
fn what_is_unmapped_once_all_devices_are_quiesced_is_as_due_as_it_was_written() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 100)]);
    bench.write([1]);
    let quiesced = bench.quiesce();
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert_eq!(bench.report(pages(0, 100)), [1]);
    drop(quiesced);
    bench.map(pages(0, 4));
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert_eq!(bench.report(pages(0, 100)).len(), 4, "the device can write again");
}

#[test]
fn what_is_unmapped_after_a_quiesced_device_was_reset_is_due_as_a_whole() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    let _quiesced = bench.quiesce();
    bench.device.reset();
    bench.write([1]);
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert_eq!(bench.report(pages(0, 4)), [0, 1, 2, 3]);
}

#[test]
fn what_a_device_writes_that_is_reset_during_an_unmap_is_not_lost() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    let _quiesced = bench.quiesce();
    let device = bench.device.clone();
    bench.machine.have_happen(Call::Unmap, move || {
        device.reset();
        assert!(device.write(2, 1), "it is mapped still");
    });
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert!(bench.report(pages(0, 4)).contains(&2));
}

#[test]
fn one_device_that_can_write_is_enough() {
    let bench = Bench::small();
    let second = ModelDevice::new(&bench.machine, 1);
    let second_attached = bench.ioas.attach(second, 1).unwrap();
    assert_eq!(
        bench.machine.page_tables(),
        1,
        "devices of one IOMMU share a page table"
    );
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    let (_first, twice) = (bench.quiesce(), bench.quiesce());
    drop(twice);
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert_eq!(bench.report(pages(0, 4)).len(), 4);
    drop(second_attached);
    bench.map(pages(0, 4));
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert!(
        bench.report(pages(0, 4)).is_empty(),
        "the only device left is quiesced"
    );
}

#[test]
fn what_devices_cannot_write_is_never_due() {
    let bench = Bench::small();
    map(&bench.ioas, pages(0, 4), Access::Read);
    bench.start(&[pages(0, 4)]);
    assert!(!bench.device.write(0, 1));
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert!(bench.report(pages(0, 4)).is_empty());
}

#[test]
fn memory_mapped_while_tracking_runs_is_tracked() {
    let bench = Bench::small();
    bench.start(&[pages(0, 100)]);
    bench.map(pages(50, 4));
    bench.write([51]);
    assert_eq!(bench.report(pages(0, 100)), [51]);
}

#[test]
fn memory_mapped_while_tracking_runs_starts_dirty_where_entries_are_controlled() {
    let bench = Bench::new(DirtyControl::PerPte, Leaves::Small);
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 100)]);
    bench.map(pages(50, 2));
    assert_eq!(bench.report(pages(0, 100)), [50, 51]);
    assert!(bench.report(pages(0, 100)).is_empty());
}

#[test]
fn a_report_of_a_part_of_a_large_page_loses_nothing_of_the_rest() {
    let bench = Bench::new(DirtyControl::Global, Leaves::Large);
    bench.map(pages(0, 2 * LARGE));
    bench.start(&[pages(0, 2 * LARGE)]);
    bench.write([1, LARGE + 3]);
    assert_eq!(bench.report(pages(3, 1)), [3]);
    let next = bench.report(pages(4, LARGE));
    assert_eq!(next, (4..4 + LARGE).collect::<Vec<_>>());
    let rest: Vec<u64> = (0..3).chain(4 + LARGE..2 * LARGE).collect();
    assert_eq!(bench.report(pages(0, 2 * LARGE)), rest);
}

#[test]
fn what_a_page_table_recorded_outlives_it() {
    let mut bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    bench.write([2]);
    bench.attached = None;
    assert_eq!(bench.machine.page_tables(), 0);
    assert_eq!(bench.report(pages(0, 4)), [2]);
}

#[test]
fn a_device_of_another_iommu_is_tracked_from_its_first_write() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    let other = ModelDevice::new(&bench.machine, 2);
    let attached = bench.ioas.attach(other.clone(), 2).unwrap();
    assert_eq!(bench.machine.page_tables(), 2);
    assert!(Arc::ptr_eq(attached.tracker().unwrap(), bench.tracker()));
    bench.write([0]);
    assert!(other.write(3, 1));
    assert_eq!(bench.report(pages(0, 4)), [0, 3]);
}

#[test]
fn a_device_whose_page_table_cannot_join_a_running_log_is_refused() {
    let bench = Bench::small();
    bench.start(&[pages(0, 4)]);
    bench.machine.set_fault(Fault::EnableFails);
    let refused = bench.ioas.attach(ModelDevice::new(&bench.machine, 2), 2);
    assert!(matches!(refused, Err(IommuError::Track(_))));
    assert_eq!(bench.machine.page_tables(), 1, "nothing is left of it");
}

#[test]
fn a_device_whose_iommu_has_no_dirty_bits_has_no_tracker() {
    let bench = Bench::small();
    let id = ModelDevice::WITHOUT_DIRTY_BITS;
    let attached = bench
        .ioas
        .attach(ModelDevice::new(&bench.machine, id), id)
        .unwrap();
    assert!(attached.tracker().is_none());
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    assert_eq!(bench.machine.times_enabled(), 1);
    let _quiesced = bench.quiesce();
    bench.ioas.unmap(pages(0, 4)).unwrap();
    assert!(
        bench.report(pages(0, 4)).is_empty(),
        "it sets no bits that could be lost"
    );
}

/// Has memory be unmapped by another thread while the kernel is in `call`, and returns whether it could be.
fn unmapped_during(bench: &Bench, call: Call, range: IovaRange) -> std::sync::mpsc::Receiver<bool> {
    let (done, ended) = std::sync::mpsc::channel();
    let ioas = bench.ioas.clone();
    bench.machine.have_happen(call, move || {
        let (unmapped, is_unmapped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            ioas.unmap(range).unwrap();
            unmapped.send(()).unwrap();
        });
        let in_time = is_unmapped.recv_timeout(Duration::from_secs(10)).is_ok();
        done.send(in_time).unwrap();
    });
    ended
}

#[test]
fn nobody_waits_while_the_kernel_fills_or_empties_a_page_table() {
    let bench = Bench::small();
    for first in [0, 4] {
        bench.map(pages(first, 4));
    }
    bench.start(&[pages(0, 8)]);
    let other = ModelDevice::new(&bench.machine, 2);
    let during = unmapped_during(&bench, Call::AllocPageTable, pages(0, 4));
    let attached = bench.ioas.attach(other.clone(), 2).unwrap();
    assert!(during.recv().unwrap(), "while a page table was filled");
    assert_eq!(bench.report(pages(0, 8)), [0, 1, 2, 3]);
    assert!(other.write(5, 1), "what is mapped still");
    let during = unmapped_during(&bench, Call::Destroy, pages(4, 4));
    drop(attached);
    assert!(during.recv().unwrap(), "while a page table was emptied");
    assert_eq!(bench.report(pages(0, 8)), [4, 5, 6, 7]);
}

#[test]
fn further_ranges_do_not_switch_tracking_on_again() {
    let bench = Bench::small();
    bench.map(pages(0, 8));
    bench.start(&[pages(0, 4)]);
    bench.write([1, 5]);
    bench.start(&[pages(0, 8)]);
    assert_eq!(
        bench.report(pages(0, 8)),
        [1],
        "what was not started begins clean"
    );
    assert_eq!(bench.machine.times_enabled(), 1);
}

#[test]
fn after_a_failed_read_every_one_fails_until_the_tracker_is_stopped() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    bench.write([1]);
    bench.machine.set_fault(Fault::ReadFails);
    let read = || read(pages(0, 4), |report| bench.tracker().read_and_clear(report));
    assert!(matches!(read(), Err(TrackerError::Failed(_))));
    bench.machine.clear_faults();
    assert!(matches!(read(), Err(TrackerError::Failed(_))), "page 1 is lost");
    bench.tracker().stop().unwrap();
    bench.start(&[pages(0, 4)]);
    assert!(read().unwrap().is_empty());
}

#[test]
fn a_failed_peek_loses_nothing() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    bench.write([1]);
    bench.machine.set_fault(Fault::ReadFails);
    assert!(read(pages(0, 4), |report| bench.tracker().peek(report)).is_err());
    bench.machine.clear_faults();
    assert_eq!(bench.report(pages(0, 4)), [1]);
}

#[test]
fn bits_that_cannot_be_read_before_an_unmap_make_all_of_it_due() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    bench.write([1]);
    let _quiesced = bench.quiesce();
    bench.machine.set_fault(Fault::ReadFails);
    bench.ioas.unmap(pages(0, 4)).unwrap();
    bench.machine.clear_faults();
    assert_eq!(bench.report(pages(0, 4)), [0, 1, 2, 3]);
}

#[test]
fn what_cannot_be_unmapped_stays_mapped_and_due() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    bench.start(&[pages(0, 4)]);
    bench.machine.set_fault(Fault::UnmapFails);
    assert!(matches!(
        bench.ioas.unmap(pages(0, 4)),
        Err(IommuError::Unmap { .. })
    ));
    assert_eq!(bench.report(pages(0, 4)), [0, 1, 2, 3]);
    bench.write([2]);
    assert_eq!(bench.report(pages(0, 4)), [2]);
    bench.machine.clear_faults();
    bench.ioas.unmap(pages(0, 4)).unwrap();
}

#[test]
fn what_cannot_be_mapped_or_unmapped_is_refused_with_the_reason() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    for range in [pages(0, 3), pages(1, 3), pages(0, 5), pages(8, 1)] {
        assert!(matches!(bench.ioas.unmap(range), Err(IommuError::NotMapped(_))));
    }
    let file = File::open("/dev/null").unwrap();
    let map = |range| bench.ioas.map(range, &file, 0, Access::Write);
    assert!(matches!(map(pages(3, 2)), Err(IommuError::Mapped(_))));
    assert!(matches!(
        map(pages((1 << 40) - 1, 2)),
        Err(IommuError::OutOfReach(_))
    ));
}

#[test]
fn a_map_waits_for_the_unmap_of_what_is_in_the_way() {
    let bench = Bench::small();
    bench.map(pages(0, 4));
    let file = File::open("/dev/null").unwrap();
    let map = |patience| {
        bench
            .ioas
            .map_when_free(pages(2, 8), &file, 0, Access::Write, patience)
    };
    assert!(matches!(
        map(Duration::from_millis(1)),
        Err(IommuError::Mapped(_))
    ));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| map(Duration::from_mins(1)));
        bench.ioas.unmap(pages(0, 4)).unwrap();
        waits.join().unwrap().unwrap();
    });
    bench.ioas.unmap(pages(2, 8)).unwrap();
}
