//! Suspending and resuming.

use super::super::testing::Guest;
use super::super::{BusMaster, DmaError};
use super::{Access, NONE, PAGE, soon};

#[test]
fn nothing_is_read_or_written_between_suspend_and_resume() {
    let guest = Guest::new(16 * PAGE);
    let dma = guest.dma();
    guest.start_tracking();
    guest.space().suspend(soon()).unwrap();
    guest.space().suspend(soon()).unwrap();
    assert_eq!(dma.write(0, &[1]), Err(DmaError::Stopped));
    assert_eq!(dma.write(0, &[]), Err(DmaError::Stopped));
    assert_eq!(dma.read(0, &mut [1]), Err(DmaError::Stopped));
    assert_eq!(dma.copy(0, PAGE, 1), Err(DmaError::Stopped));
    assert_eq!(dma.check(0, 1, Access::Read), Err(DmaError::Stopped));
    assert_eq!(dma.lease(0, 1).unwrap_err(), DmaError::Stopped);
    assert_eq!(guest.take_dirty(), NONE);
    guest.space().resume();
    dma.write(0, &[1]).unwrap();
    assert_eq!(guest.take_dirty(), [0]);
}

#[test]
fn a_suspended_device_is_told_so_even_with_bus_mastering_off() {
    let guest = Guest::new(PAGE);
    guest.space().set_bus_master(BusMaster::Off);
    guest.space().suspend(soon()).unwrap();
    assert_eq!(guest.dma().write(0, &[1]), Err(DmaError::Stopped));
    guest.space().resume();
    assert_eq!(guest.dma().write(0, &[1]), Err(DmaError::BusMasterOff));
}

#[test]
fn memory_can_be_mapped_and_unmapped_while_the_device_is_stopped() {
    let guest = Guest::new(16 * PAGE);
    guest.space().suspend(soon()).unwrap();
    guest.unmap_ram();
    guest.map_ram();
    guest.space().resume();
    guest.dma().write(0, &[1]).unwrap();
}
