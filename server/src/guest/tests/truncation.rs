//! A client that takes the memory away from under its mapping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::testing::{Guest, memfd};
use super::super::{DmaError, DmaSpace};
use super::{Access, PAGE, map, request, shortly, soon, space};

/// Counts the calls of a space's failure callback.
fn count_failures(space: &DmaSpace) -> Arc<AtomicUsize> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    space.on_memory_failure(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    calls
}

#[test]
fn sealed_memory_cannot_be_taken_away() {
    let guest = Guest::new(16 * PAGE);
    guest.memory().set_len(0).unwrap_err();
    guest.dma().write(15 * PAGE, &[1]).unwrap();
}

#[test]
fn an_access_to_truncated_memory_fails_and_tells_the_owner_once() {
    let space = space();
    let calls = count_failures(&space);
    let file = map(&space, 0, 16 * PAGE);
    let other = map(&space, 0x10_0000, PAGE);
    let dma = space.dma();
    dma.write(0, &[1; 64]).unwrap();
    file.set_len(8 * PAGE).unwrap();
    dma.write(7 * PAGE, &[1; PAGE as usize]).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(dma.write(8 * PAGE, &[1]), Err(DmaError::MemoryFailed(8 * PAGE)));
    assert_eq!(
        dma.read(9 * PAGE, &mut [1]),
        Err(DmaError::MemoryFailed(9 * PAGE))
    );
    assert_eq!(
        dma.copy(0x10_0000, 10 * PAGE, 8),
        Err(DmaError::MemoryFailed(10 * PAGE))
    );
    assert_eq!(dma.load_u32(0, Ordering::Acquire), Err(DmaError::MemoryFailed(0)));
    assert_eq!(dma.check(0, 1, Access::Read), Err(DmaError::MemoryFailed(0)));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    // Other memory is not concerned, nor is what is mapped in its place later.
    dma.write(0x10_0000, &[1]).unwrap();
    drop(other);
    space.unmap(0, 16 * PAGE, shortly()).unwrap();
    map(&space, 0, 16 * PAGE);
    dma.write(8 * PAGE, &[1]).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn whoever_asks_late_is_told_of_a_failure_too() {
    let space = space();
    map(&space, 0, PAGE).set_len(0).unwrap();
    space.dma().write(0, &[1]).unwrap_err();
    assert_eq!(count_failures(&space).load(Ordering::Relaxed), 1);
}

#[test]
fn read_only_memory_that_was_truncated_fails_on_reads() {
    let space = space();
    let file = memfd(PAGE);
    space
        .map(request(0, PAGE, Access::Read, file.try_clone().unwrap()))
        .unwrap();
    file.set_len(0).unwrap();
    assert_eq!(space.dma().read(0, &mut [1]), Err(DmaError::MemoryFailed(0)));
}

#[test]
fn a_lease_of_truncated_memory_is_harmless() {
    let space = space();
    let calls = count_failures(&space);
    let file = map(&space, 0, 4 * PAGE);
    let lease = space.dma().lease(PAGE, 2 * PAGE as usize).unwrap();
    file.set_len(0).unwrap();
    lease.slice().copy_from(&[1_u8; 2 * PAGE as usize]);
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    drop(lease);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn memory_that_is_truncated_again_and_again_under_running_dma_harms_nobody_else() {
    let innocent = Guest::new(64 * PAGE);
    let (stop, rounds) = (AtomicBool::new(false), 50);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dma = innocent.dma();
            while !stop.load(Ordering::Relaxed) {
                dma.copy(0, 32 * PAGE, 8 * PAGE as usize).unwrap();
            }
        });
        for _ in 0..rounds {
            let space = space();
            let calls = count_failures(&space);
            let file = map(&space, 0, 64 * PAGE);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| write_until_it_fails(&space));
                }
                file.set_len(32 * PAGE).unwrap();
            });
            assert_eq!(calls.load(Ordering::Relaxed), 1);
            space.suspend(soon()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn write_until_it_fails(space: &DmaSpace) {
    let dma = space.dma();
    let deadline = soon();
    loop {
        match dma.write(30 * PAGE + 5, &[1; 3 * PAGE as usize]) {
            Ok(()) => assert!(std::time::Instant::now() < deadline, "the memory never failed"),
            Err(DmaError::MemoryFailed(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
