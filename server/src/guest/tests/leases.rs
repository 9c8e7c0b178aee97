//! Zero-copy writes: marked when they end, and waited for.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vm_memory::Bytes;

use super::super::testing::Guest;
use super::super::{DmaError, MapRefusal, UnmapError};
use super::{Access, NONE, PAGE, memfd, request, shortly, soon};

#[test]
fn a_lease_is_marked_when_it_is_dropped_and_not_before() {
    let guest = Guest::new(16 * PAGE);
    guest.start_tracking();
    let lease = guest.dma().lease(0x1ffc, 8).unwrap();
    assert_eq!(lease.slice().len(), 8);
    lease.slice().write_slice(&[5; 8], 0).unwrap();
    assert_eq!(guest.take_dirty(), NONE);
    drop(lease);
    assert_eq!(guest.take_dirty(), [0x1000, 0x2000]);
    let mut bytes = [0; 10];
    guest.read(0x1ffb, &mut bytes);
    assert_eq!(bytes, [0, 5, 5, 5, 5, 5, 5, 5, 5, 0]);
}

#[test]
fn unmap_answers_when_the_lease_has_ended_and_its_pages_are_marked() {
    let guest = Guest::new(16 * PAGE);
    guest.start_tracking();
    let lease = guest.dma().lease(0x3000, 1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            lease.slice().write_obj(1_u8, 0).unwrap();
            drop(lease);
        });
        guest.space().unmap(0, 16 * PAGE, soon()).unwrap();
        assert_eq!(guest.take_dirty(), [0x3000]);
    });
}

#[test]
fn a_lease_that_does_not_end_holds_unmap_up_to_its_deadline_and_is_never_dangling() {
    let guest = Guest::new(16 * PAGE);
    guest.start_tracking();
    let dma = guest.dma();
    let lease = dma.lease(0x3000, 8).unwrap();
    let before = Instant::now();
    let error = guest.space().unmap(0, 16 * PAGE, shortly()).unwrap_err();
    assert!(before.elapsed() >= Duration::from_millis(40));
    assert_eq!(error, UnmapError::Leased(0x3000));
    assert_eq!((error.is_timeout(), error.errno()), (true, Errno::BUSY));
    assert!(guest.space().unmap_all(shortly()).unwrap_err().is_timeout());
    // Nothing new begins there, and nothing else is mapped there while the lease may be written.
    assert_eq!(dma.write(0, &[1]), Err(DmaError::NotMapped(0)));
    assert_eq!(dma.lease(0, 1).unwrap_err(), DmaError::NotMapped(0));
    let refused = guest
        .space()
        .map(request(0, PAGE, Access::Write, memfd(PAGE)))
        .unwrap_err();
    assert_eq!(refused.reason, MapRefusal::Overlap(0));
    lease.slice().write_slice(&[7; 8], 0).unwrap();
    drop(lease);
    assert_eq!(guest.take_dirty(), [0x3000]);
    guest.unmap_ram();
    guest.map_ram();
    dma.write(0, &[1]).unwrap();
}

#[test]
fn a_lease_elsewhere_does_not_hold_unmap_up() {
    let guest = Guest::new(16 * PAGE);
    let file = super::map(guest.space(), 0x10_0000, PAGE);
    let lease = guest.dma().lease(0x10_0000, 4).unwrap();
    guest.space().unmap(0, 16 * PAGE, Instant::now()).unwrap();
    lease.slice().write_obj(3_u8, 0).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [3]);
}

#[test]
fn a_lease_that_does_not_end_holds_suspend_up_to_its_deadline() {
    let guest = Guest::new(16 * PAGE);
    let lease = guest.dma().lease(0x3000, 8).unwrap();
    assert_eq!(guest.space().suspend(shortly()).unwrap_err().iova, 0x3000);
    assert_eq!(guest.dma().write(0, &[1]), Err(DmaError::Stopped));
    drop(lease);
    guest.space().suspend(shortly()).unwrap();
}

#[test]
fn a_lease_outlives_its_connection() {
    let guest = Guest::new(16 * PAGE);
    let (dma, file) = (guest.dma(), guest.memory().try_clone().unwrap());
    let lease = dma.lease(0x3000, 8).unwrap();
    drop(guest);
    lease.slice().write_slice(&[7; 8], 0).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0x3000).unwrap();
    assert_eq!(bytes, [7; 8]);
    drop(lease);
    assert_eq!(dma.write(0, &[1]), Err(DmaError::Stopped));
}
