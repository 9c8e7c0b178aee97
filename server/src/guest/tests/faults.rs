//! Negative controls: the check that finds no loss otherwise finds these.

use super::super::DmaFault;
use super::super::testing::Guest;
use super::races::{PAGES, migrate, write_pages};
use super::{NONE, PAGE};

/// Pages lost by the first of a few migrations that loses any.
fn lost_with(fault: DmaFault, tries: u32) -> Vec<u64> {
    let mut lost = Vec::new();
    for _ in 0..tries {
        let guest = Guest::new(PAGES * PAGE);
        guest.space().inject(fault);
        lost = migrate(&guest, write_pages, 50);
        if !lost.is_empty() {
            break;
        }
    }
    lost
}

#[test]
fn a_mark_before_the_write_is_caught() {
    assert_ne!(lost_with(DmaFault::MarkBeforeWrite, 100), NONE);
}

#[test]
fn a_reader_without_its_barrier_is_caught() {
    assert_ne!(lost_with(DmaFault::NoReaderBarrier, 100), NONE);
}

#[test]
fn a_store_buffer_loses_nothing_with_the_barrier() {
    assert_eq!(lost_with(DmaFault::StoreBuffer, 5), NONE);
}
