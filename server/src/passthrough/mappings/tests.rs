//! Mappings of several connections in one address space.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread;

use pagetrail_tracker::Iova;
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::*;
use crate::passthrough::model::FakeSpace;

const PAGE: u64 = 4096;

fn memory(pages: u64) -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, pages * PAGE).unwrap();
    file
}

fn request(first: u64, pages: u64, file: Option<&OwnedFd>) -> MapRequest {
    MapRequest {
        iova: first * PAGE,
        size: pages * PAGE,
        offset: 0,
        access: guest::Access::Write,
        fd: file.map(|file| file.try_clone().unwrap()),
    }
}

/// An address space, and as many connections as are taken of it.
struct Rig {
    space: Arc<FakeSpace>,
    memory: Arc<VmMemory>,
}

impl Rig {
    fn new() -> Self {
        let space = Arc::new(FakeSpace::default());
        let memory = Arc::new(VmMemory::new(space.clone()));
        Self { space, memory }
    }

    fn connection(&self) -> Mappings {
        self.connection_with(Share::of_the_rest())
    }

    fn connection_with(&self, share: Share) -> Mappings {
        Mappings::new(Arc::clone(&self.memory), AllowedFiles::TmpfsAndHugetlbfs, share)
    }

    fn mapped(&self) -> usize {
        self.space.mapped.lock().len()
    }
}

#[test]
fn the_same_memory_is_mapped_once_and_goes_with_the_last_connection() {
    let rig = Rig::new();
    let (one, other) = (rig.connection(), rig.connection());
    let file = memory(8);
    for connection in [&one, &other] {
        assert_eq!(
            connection.map(request(0, 8, Some(&file))).unwrap(),
            Reach::Reachable
        );
    }
    assert_eq!(rig.mapped(), 1);
    one.unmap(0, 8 * PAGE).unwrap();
    assert_eq!(rig.mapped(), 1, "the other connection has it still");
    drop(other);
    assert_eq!(rig.mapped(), 0);
}

#[test]
fn a_mapping_waits_for_another_connection_to_take_away_what_is_in_its_way() {
    let rig = Rig::new();
    let (one, other) = (rig.connection(), rig.connection());
    let (old, new) = (memory(8), memory(8));
    for (first, pages) in [(0, 8), (2, 4)] {
        one.map(request(0, 8, Some(&old))).unwrap();
        thread::scope(|scope| {
            let mapping = scope.spawn(|| other.map(request(first, pages, Some(&new))));
            one.unmap(0, 8 * PAGE).unwrap();
            mapping.join().unwrap().expect("its turn came");
        });
        other.unmap(first * PAGE, pages * PAGE).unwrap();
    }
    assert_eq!(rig.mapped(), 0);
}

#[test]
fn a_mapping_does_not_wait_for_ever() {
    let rig = Rig::new();
    let (one, other) = (rig.connection(), rig.connection());
    one.map(request(0, 8, Some(&memory(8)))).unwrap();
    let refused = other.map(request(0, 8, Some(&memory(8)))).unwrap_err();
    assert_eq!(refused.errno(), Errno::EXIST);
    one.unmap(0, 8 * PAGE).expect("it is untouched");
    other
        .map(request(0, 8, Some(&memory(8))))
        .expect("it can try again");
}

#[test]
fn a_mapping_that_fails_leaves_nothing_behind() {
    let rig = Rig::new();
    let connection = rig.connection();
    let file = memory(8);
    *rig.space.next_failure.lock() = Some(Errno::NOMEM);
    let refused = connection.map(request(0, 8, Some(&file))).unwrap_err();
    assert_eq!(refused.errno(), Errno::NOMEM);
    assert!(refused.to_string().contains("ulimit -l"), "{refused}");
    *rig.space.next_failure.lock() = Some(Errno::FAULT);
    let refused = connection.map(request(0, 8, Some(&file))).unwrap_err();
    assert_eq!(refused.errno(), Errno::FAULT);
    connection.map(request(0, 8, Some(&file))).expect("the next try");
}

/// The VM's other connection, after one has gone whose 8 pages the kernel does not unmap.
fn left_with_what_the_kernel_keeps(rig: &Rig, share: &Share, file: &OwnedFd) -> Mappings {
    let (one, other) = (
        rig.connection_with(share.clone()),
        rig.connection_with(share.clone()),
    );
    one.map(request(0, 8, Some(file))).unwrap();
    rig.space.keeps_all.store(true, Ordering::Relaxed);
    drop(one);
    other
}

#[test]
fn what_the_kernel_keeps_when_a_connection_goes_counts_until_the_vm_has_no_clients() {
    let rig = Rig::new();
    let share = Share::of_its_own(2, 16 * PAGE);
    let file = memory(8);
    let other = left_with_what_the_kernel_keeps(&rig, &share, &file);
    other
        .map(request(0, 8, Some(&file)))
        .expect("the same memory, which is mapped");
    let refused = other.map(request(8, 8, Some(&file))).unwrap_err();
    assert!(
        matches!(refused, MappingError::Refused(MapRefusal::TooMany)),
        "{refused}"
    );
    drop(other);
    assert!(share.take(PAGE).is_err(), "what both had is mapped still");
    drop(rig);
    share.take(16 * PAGE).expect("the VM's memory has gone");
}

#[test]
fn what_the_kernel_kept_is_given_back_once_it_lets_go() {
    let rig = Rig::new();
    let share = Share::of_its_own(2, 16 * PAGE);
    let file = memory(8);
    let other = left_with_what_the_kernel_keeps(&rig, &share, &file);
    rig.space.keeps_all.store(false, Ordering::Relaxed);
    other.map(request(0, 8, Some(&file))).unwrap();
    other.unmap(0, 8 * PAGE).unwrap();
    assert_eq!(rig.mapped(), 0);
    let _one = share.take(8 * PAGE).unwrap();
    share.take(8 * PAGE).expect("all of it is there again");
}

#[test]
fn overlapping_unaligned_and_foreign_memory_is_refused() {
    let rig = Rig::new();
    let connection = rig.connection();
    let file = memory(8);
    connection.map(request(4, 4, Some(&file))).unwrap();
    let errno = |request| connection.map(request).unwrap_err().errno();
    assert_eq!(errno(request(7, 4, Some(&file))), Errno::EXIST);
    assert_eq!(errno(request(0, 5, Some(&file))), Errno::EXIST);
    assert_eq!(
        errno(request(20, 9, Some(&file))),
        Errno::INVAL,
        "the file is too short"
    );
    let mut unaligned = request(20, 1, Some(&file));
    unaligned.iova += 1;
    assert_eq!(errno(unaligned), Errno::INVAL);
    assert_eq!(errno(request(20, 0, Some(&file))), Errno::INVAL);
    let device = OwnedFd::from(File::open("/dev/null").unwrap());
    assert_eq!(errno(request(20, 1, Some(&device))), Errno::INVAL);
    assert_eq!(rig.mapped(), 1);
}

#[test]
fn a_device_writes_no_file_that_its_client_may_not_write() {
    let rig = Rig::new();
    let connection = rig.connection();
    let file = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, 8 * PAGE).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read_only = OwnedFd::from(File::open(&path).unwrap());
    let write_only = OwnedFd::from(File::options().write(true).open(&path).unwrap());
    let errno = |request| connection.map(request).unwrap_err().errno();
    let reading = |file| MapRequest {
        access: guest::Access::Read,
        ..request(0, 8, Some(file))
    };
    for file in [&read_only, &write_only] {
        assert_eq!(errno(request(0, 8, Some(file))), Errno::ACCESS);
    }
    assert_eq!(errno(reading(&write_only)), Errno::ACCESS);
    connection.map(reading(&read_only)).expect("it may be read");
    connection.unmap_all().unwrap();
    connection
        .map(request(0, 8, Some(&file)))
        .expect("it may be written");
    connection.unmap_all().unwrap();
    fcntl_add_seals(&file, SealFlags::FUTURE_WRITE).unwrap();
    assert_eq!(errno(request(0, 8, Some(&file))), Errno::PERM);
    connection.map(reading(&file)).expect("it may be read still");
}

#[test]
fn memory_without_a_file_is_known_and_not_reached() {
    let rig = Rig::new();
    let connection = rig.connection();
    assert_eq!(connection.map(request(0, 8, None)).unwrap(), Reach::Unreachable);
    let overlap = connection.map(request(0, 1, Some(&memory(1)))).unwrap_err();
    assert_eq!(overlap.errno(), Errno::EXIST);
    connection.unmap(0, 8 * PAGE).unwrap();
    assert_eq!(rig.mapped(), 0);
}

#[test]
fn only_whole_mappings_of_the_connection_are_taken_away() {
    let rig = Rig::new();
    let (one, other) = (rig.connection(), rig.connection());
    one.map(request(0, 8, Some(&memory(8)))).unwrap();
    for (iova, size) in [(0, 4 * PAGE), (PAGE, 8 * PAGE), (8 * PAGE, PAGE)] {
        assert_eq!(one.unmap(iova, size).unwrap_err().errno(), Errno::NOENT);
    }
    assert_eq!(other.unmap(0, 8 * PAGE).unwrap_err().errno(), Errno::NOENT);
    one.unmap_all().unwrap();
    assert_eq!(rig.mapped(), 0);
    let range = IovaRange::from_len(Iova::new(0), PAGE).unwrap();
    assert!(matches!(rig.memory.unmap(range), Err(IommuError::NotMapped(_))));
}
