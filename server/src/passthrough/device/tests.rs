//! A whole passthrough device over the wire's messages, on a kernel in memory.

use std::os::unix::net::UnixStream;

use pagetrail_tracker::{Candidate, DeviceKind, Ioas, PageSize, WithoutTracker};

use super::*;
use crate::passthrough::memory::VmMemory;
use crate::passthrough::model::{DEVICE_CONTROL, FakeDevice, FakeSpace, STRIDE};
use crate::passthrough::regions::BarAccess;
use crate::wire::bytes;
use crate::wire::region::{CONFIG_REGION, DeviceFlags, RegionAccess};

fn passthrough(device: &Arc<FakeDevice>, without_tracker: WithoutTracker) -> Passthrough {
    let missing = || Candidate::Missing("none in this test".into());
    let kind = DeviceKind::Passthrough {
        page_table_tracker: missing(),
        device_tracker: missing(),
        without_tracker,
    };
    let log = Arc::new(Ioas::new().attach(kind, "vf").unwrap());
    let memory = Arc::new(VmMemory::new(Arc::new(FakeSpace::default())));
    let socket = UnixStream::pair().unwrap().0.into();
    let parts = Parts {
        name: "vf".to_owned(),
        regions: Regions::of(&**device, BarAccess::Mapped).unwrap(),
        device: device.clone(),
        attached: Arc::new(Attached(Mutex::new(None))),
        log,
        mappings: Mappings::new(memory, AllowedFiles::TmpfsAndHugetlbfs, Share::of_the_rest()),
        shared: None,
    };
    Passthrough::put_together(parts, Connection::of(&socket).unwrap()).unwrap()
}

#[test]
fn a_device_that_nothing_tracks_does_not_migrate_and_has_no_log() {
    let device = passthrough(&FakeDevice::new(), WithoutTracker::BlockLog);
    assert_eq!(device.migration_flags(), Err(Errno::NOTTY));
    assert_eq!(device.set_migration_state(MigState::Stop), Err(Errno::NOTTY));
    device.log.start(&[], PageSize::SIZE_4K).unwrap_err();
    let assumed = passthrough(&FakeDevice::new(), WithoutTracker::AssumeDirty);
    assert_eq!(assumed.migration_flags(), Ok(0b111));
    assumed.log.start(&[], PageSize::SIZE_4K).unwrap();
}

#[test]
fn a_device_that_fails_loses_its_log_until_both_begin_anew() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::AssumeDirty);
    device.log.start(&[], PageSize::SIZE_4K).unwrap();
    kernel.with(|state| state.next_failure = Some(0));
    assert_eq!(device.set_migration_state(MigState::Stop), Err(Errno::IO));
    assert!(device.is_failed());
    let range = pagetrail_tracker::IovaRange::from_len(pagetrail_tracker::Iova::new(0), 4096).unwrap();
    device.log.check_range(&range).unwrap_err();
    device.reset().unwrap();
    assert!(!device.is_failed());
    device
        .log
        .check_range(&range)
        .expect_err("a reset does not bring pages back");
    device.log.stop().unwrap();
    device.log.start(&[], PageSize::SIZE_4K).unwrap();
    device.log.check_range(&range).unwrap();
}

/// REGION_WRITE of Device Control: a reset by the guest's driver.
fn reset_by_guest() -> Vec<u8> {
    let access = RegionAccess {
        offset: DEVICE_CONTROL,
        region: CONFIG_REGION,
        count: 2,
    };
    [bytes(&access), vec![0, 1 << 7]].concat()
}

#[test]
fn a_device_that_the_guest_resets_runs_until_it_is_stopped_again() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::AssumeDirty);
    device.set_migration_state(MigState::Stop).unwrap();
    device.write_region(&reset_by_guest()).unwrap();
    assert_eq!(device.migration_state(), Ok(MigState::Running));
    device.set_migration_state(MigState::Stop).unwrap();
    assert_eq!(kernel.with(|state| state.reached), 1, "the kernel was asked");
}

#[test]
fn a_device_that_fails_by_itself_loses_its_log() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::AssumeDirty);
    device.log.start(&[], PageSize::SIZE_4K).unwrap();
    let range = pagetrail_tracker::IovaRange::ALL;
    assert!(!device.is_failed());
    device.log.check_range(&range).unwrap();
    kernel.with(|state| state.reached = 0);
    assert!(device.is_failed());
    device.log.check_range(&range).unwrap_err();
}

#[test]
fn a_device_that_is_unplugged_answers_with_errors_and_loses_its_log() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::AssumeDirty);
    device.log.start(&[], PageSize::SIZE_4K).unwrap();
    let page = pagetrail_tracker::IovaRange::from_len(pagetrail_tracker::Iova::new(0), 4096).unwrap();
    device.log.check_range(&page).unwrap();
    kernel.unplug();
    let gone = Some(Errno::NODEV);
    let access = RegionAccess {
        offset: 0,
        region: 0,
        count: 4,
    };
    assert_eq!(device.regions.read(&*kernel, &bytes(&access)).err(), gone);
    assert_eq!(device.write_region(&reset_by_guest()).err(), gone);
    assert_eq!(device.irq_info(2).err(), gone);
    assert_eq!(device.migration_data_size().err(), gone);
    assert_eq!(
        device.migration_state(),
        Ok(MigState::Error),
        "nobody knows any better"
    );
    assert!(device.set_migration_state(MigState::Stop).is_err() && device.reset().is_err());
    assert!(device.is_failed());
    device.log.check_range(&page).expect_err("it may have written");
    device.unmap_all().expect("memory is given back all the same");
    device.end();
}

#[test]
fn a_device_without_reset_says_so_and_is_served() {
    let kernel = FakeDevice::new();
    kernel.with(|state| state.flags = DeviceFlags::PCI);
    let device = passthrough(&kernel, WithoutTracker::BlockLog);
    assert_eq!(device.reset(), Err(Errno::NOTTY));
    device.end();
    assert_eq!(kernel.with(|state| state.resets), 0);
}

#[test]
fn the_device_is_reset_when_its_client_has_gone() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::BlockLog);
    device.end();
    assert_eq!(kernel.with(|state| state.resets), 1);
}

#[test]
fn a_device_has_stopped_before_it_is_reset() {
    let kernel = FakeDevice::new();
    let device = passthrough(&kernel, WithoutTracker::BlockLog);
    let request = |command: u16| {
        let config = u64::from(CONFIG_REGION) * STRIDE;
        kernel.write_at(&command.to_le_bytes(), config + 4).unwrap();
    };
    request(0b110);
    device.end();
    assert_eq!(kernel.with(|state| state.command_at_reset), Some(0b010));
}

#[test]
fn only_a_like_device_is_a_destination() {
    let kernel = FakeDevice::new();
    let regions = Regions::of(&*kernel, BarAccess::Mapped).unwrap();
    let identity = identity(&regions, &*kernel).unwrap();
    let expected = [
        ("vendor", 0x1af4),
        ("device", 0x1105),
        ("subsystem-vendor", 0x0201),
        ("subsystem", 0x0403),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(identity.config, expected);
}
