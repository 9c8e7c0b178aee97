//! The rust-vmm types do for `vm-memory` what its own bitmap does.
#![cfg(not(loom))]

mod common;

use std::num::NonZeroUsize;
use std::sync::Arc;

use common::{MIB, range};
use pagetrail_tracker::{DirtyBitmap, DirtyTracker, Iova, PageSize, SoftwareTracker, TrackedRegion};
use proptest::prelude::*;
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress,
};

fn page(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).unwrap()
}

fn is(bitmap: &impl Bitmap, start: usize, len: usize, dirty: bool) -> bool {
    (start..start + len).all(|offset| bitmap.dirty_at(offset) == dirty)
}

/// What any bitmap of at least 64 KiB does.
fn a_mark_shows_in_the_bitmap_and_in_its_slices<B: Bitmap>(bitmap: &B) {
    let slice = bitmap.slice_at(0x5000);
    assert!(is(bitmap, 0, 0x10000, false) && is(&slice, 0, 0x1000, false));
    bitmap.mark_dirty(0x5000, 0x1001);
    assert!(is(bitmap, 0x5000, 0x1001, true) && is(&slice, 0, 0x1001, true));
    assert!(is(bitmap, 0, 0x5000, false) && is(bitmap, 0x7000, 0x1000, false));
    slice.mark_dirty(0x4000, 1);
    assert!(bitmap.dirty_at(0x9000));
    bitmap.mark_dirty(0xb000, 0);
    assert!(!bitmap.dirty_at(0xb000));
}

#[test]
fn a_dirty_bitmap_is_a_bitmap() {
    a_mark_shows_in_the_bitmap_and_in_its_slices(&DirtyBitmap::new(0x10000, page(128)));
    a_mark_shows_in_the_bitmap_and_in_its_slices(&DirtyBitmap::with_len(0x10000));
}

#[test]
fn a_tracked_region_is_a_bitmap() {
    let tracker = Arc::new(SoftwareTracker::new().unwrap());
    tracker.start(&[range(0, MIB)], PageSize::SIZE_4K).unwrap();
    a_mark_shows_in_the_bitmap_and_in_its_slices(&TrackedRegion::new(tracker.clone(), Iova::new(0x2_0000)));
    assert!(tracker.is_due(Iova::new(0x2_5000)));
    let top = TrackedRegion::new(tracker, Iova::new(u64::MAX));
    top.mark_dirty(0, 0x1000);
    top.mark_dirty(1, 0x1000);
    assert!(!top.dirty_at(5));
}

#[test]
fn guest_memory_marks_what_is_written_through_it() {
    let memory = GuestMemoryMmap::<DirtyBitmap>::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    memory.write_slice(&[1; 0x1001], GuestAddress(0x3000)).unwrap();
    let region = memory.find_region(GuestAddress(0)).unwrap();
    assert!(region.bitmap().dirty_at(0x3000) && region.bitmap().dirty_at(0x4000));
    assert!(!region.bitmap().dirty_at(0x5000));
    region.write_obj(7_u64, MemoryRegionAddress(0x8000)).unwrap();
    assert!(region.bitmap().dirty_at(0x8000));
}

#[test]
fn an_enlarged_bitmap_keeps_its_bits() {
    let mut bitmap = DirtyBitmap::new(8 * 1024, page(128));
    bitmap.set_addr_range(128, 129);
    bitmap.enlarge(MIB as usize);
    assert_eq!(bitmap.byte_size(), 8 * 1024 + MIB as usize);
    bitmap.set_bit(bitmap.len() - 1);
    let copy = bitmap.clone();
    assert!(
        copy.is_bit_set(1) && copy.is_bit_set(2) && !copy.is_bit_set(3) && copy.is_bit_set(copy.len() - 1)
    );
    bitmap.reset();
    assert!(bitmap.get_and_reset().iter().all(|word| *word == 0));
}

#[derive(Clone, Debug)]
enum Call {
    SetRange(usize, usize),
    ResetRange(usize, usize),
    SetBit(usize),
    ResetBit(usize),
    GetAndReset,
    Enlarge(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let at = 0..3_000_000_usize;
    prop_oneof![
        4 => (at.clone(), 0..100_000_usize).prop_map(|(at, len)| Call::SetRange(at, len)),
        1 => at.clone().prop_map(|at| Call::SetRange(at, usize::MAX)),
        2 => (at, 0..100_000_usize).prop_map(|(at, len)| Call::ResetRange(at, len)),
        1 => (0..3000_usize).prop_map(Call::SetBit),
        1 => (0..3000_usize).prop_map(Call::ResetBit),
        1 => Just(Call::GetAndReset),
        1 => (0..10_000_usize).prop_map(Call::Enlarge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Page sizes that are no power of two included, as `AtomicBitmap` allows them.
    #[test]
    fn a_dirty_bitmap_does_what_an_atomic_bitmap_does(
        size in 1..2_000_000_usize, page_size in 700..5000_usize, calls in proptest::collection::vec(call(), 1..30),
    ) {
        let (mut ours, mut theirs) = (DirtyBitmap::new(size, page(page_size)), AtomicBitmap::new(size, page(page_size)));
        for call in calls {
            match call {
                Call::SetRange(at, len) => { ours.set_addr_range(at, len); theirs.set_addr_range(at, len); }
                Call::ResetRange(at, len) => { ours.reset_addr_range(at, len); theirs.reset_addr_range(at, len); }
                Call::SetBit(bit) => { ours.set_bit(bit); theirs.set_bit(bit); }
                Call::ResetBit(bit) => { ours.reset_bit(bit); theirs.reset_bit(bit); }
                Call::GetAndReset => prop_assert_eq!(ours.get_and_reset(), theirs.get_and_reset()),
                Call::Enlarge(by) => { ours.enlarge(by); theirs.enlarge(by); }
            }
            prop_assert_eq!(ours.len(), theirs.len());
            for bit in 0..theirs.len() + 70 {
                prop_assert_eq!(ours.is_bit_set(bit), theirs.is_bit_set(bit));
            }
        }
        prop_assert_eq!(ours.get_and_reset(), theirs.get_and_reset());
    }
}
