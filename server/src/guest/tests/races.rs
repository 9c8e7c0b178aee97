//! Device threads at full speed against an owner that maps, unmaps, suspends and reads the log.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vm_memory::Bytes;

use super::super::testing::Guest;
use super::super::{Dma, DmaError};
use super::{NONE, PAGE, map, shortly, soon, space};

pub(super) const PAGES: u64 = 512;

/// What a writer may find while its owner does as it likes.
fn accept(result: Result<(), DmaError>) {
    match result {
        Ok(()) | Err(DmaError::Stopped | DmaError::NotMapped(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// What a device thread does until it is told to stop.
pub(super) type Writer = fn(&Dma, u64, &AtomicBool);

/// Small numbers at random.
fn random_from(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    }
}

/// Writes whole pages at random, as a generator does.
pub(super) fn write_pages(dma: &Dma, seed: u64, stop: &AtomicBool) {
    let mut random = random_from(seed);
    while !stop.load(Ordering::Relaxed) {
        let (page, value) = (random(PAGES) * PAGE, random(256));
        accept(dma.write(page, &[value as u8; PAGE as usize]));
    }
}

/// Writes pages at random, in every way there is.
fn write_in_every_way(dma: &Dma, seed: u64, stop: &AtomicBool) {
    let mut random = random_from(seed);
    while !stop.load(Ordering::Relaxed) {
        let (page, value) = (random(PAGES - 1) * PAGE, random(1 << 31));
        accept(match random(5) {
            0 => dma.write(page, &[value as u8; PAGE as usize]),
            1 => dma.write(page + 4000, &value.to_le_bytes().repeat(20)),
            2 => dma.copy(random(PAGES - 1) * PAGE, page, PAGE as usize + 7),
            3 => dma.store_u32(page + 8, value as u32, Ordering::Release),
            _ => dma
                .lease(page, 64)
                .map(|lease| lease.slice().write_obj(value, 8).unwrap()),
        });
    }
}

/// Runs two device threads beside `owner`.
fn beside(writer: Writer, guest: &Guest, owner: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (dma, stop) = (guest.dma(), &stop);
            scope.spawn(move || writer(&dma, seed, stop));
        }
        // Also when the owner panics: the scope waits for the threads.
        let _stop = StopOnDrop(&stop);
        owner();
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The guest's memory as its CPU sees it.
fn contents(guest: &Guest) -> Vec<u8> {
    let mut memory = vec![0; (PAGES * PAGE) as usize];
    guest.read(0, &mut memory);
    memory
}

/// IOVAs of the pages that differ.
fn differences(left: &[u8], right: &[u8]) -> Vec<u64> {
    let pages = left.chunks(PAGE as usize).zip(right.chunks(PAGE as usize));
    pages
        .enumerate()
        .filter(|(_, (left, right))| left != right)
        .map(|(page, _)| page as u64 * PAGE)
        .collect()
}

#[test]
fn after_unmap_or_suspend_every_page_written_is_marked_and_none_is_written_any_more() {
    let guest = Guest::new(PAGES * PAGE);
    guest.start_tracking();
    let mut known = contents(&guest);
    let mut written = 0;
    beside(write_in_every_way, &guest, || {
        for round in 0..60 {
            std::thread::sleep(Duration::from_millis(3));
            if round % 2 == 0 {
                guest.unmap_ram();
            } else {
                guest.space().suspend(soon()).unwrap();
            }
            let (marked, now) = (guest.take_dirty(), contents(&guest));
            let changed = differences(&known, &now);
            written += changed.len();
            for page in changed {
                assert!(
                    marked.contains(&page),
                    "round {round}: page {page:#x} was written and is not marked"
                );
            }
            std::thread::sleep(Duration::from_millis(3));
            assert_eq!(
                differences(&now, &contents(&guest)),
                NONE,
                "round {round}: written after the answer"
            );
            known = now;
            if round % 2 == 0 {
                guest.map_ram();
            } else {
                guest.space().resume();
            }
        }
    });
    assert!(written > 1000, "the writers hardly ran: {written} pages");
}

/// Copies the guest as a migration does while two threads write it. Returns the pages of the copy that are
/// wrong in the end.
pub(super) fn migrate(guest: &Guest, writer: Writer, passes: u32) -> Vec<u64> {
    guest.start_tracking();
    let mut copy = contents(guest);
    let copy_dirty = |copy: &mut [u8]| {
        for page in guest.take_dirty() {
            guest.read(page, &mut copy[page as usize..][..PAGE as usize]);
        }
    };
    beside(writer, guest, || {
        for _ in 0..passes {
            copy_dirty(&mut copy);
            std::thread::sleep(Duration::from_millis(1));
        }
        guest.space().suspend(soon()).unwrap();
        copy_dirty(&mut copy);
    });
    differences(&copy, &contents(guest))
}

#[test]
fn a_migration_beside_running_dma_loses_no_page() {
    assert_eq!(migrate(&Guest::new(PAGES * PAGE), write_in_every_way, 100), NONE);
    assert_eq!(migrate(&Guest::new(PAGES * PAGE), write_pages, 100), NONE);
}

#[test]
fn mappings_that_come_and_go_under_dma_are_never_mixed_up() {
    let space = space();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let dma = space.dma();
                while !stop.load(Ordering::Relaxed) {
                    accept(dma.write(PAGE - 8, &[0xaa; 16]));
                    accept(dma.read(PAGE - 8, &mut [0; 16]));
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            let (low, high) = (map(&space, 0, PAGE), map(&space, PAGE, PAGE));
            std::thread::yield_now();
            space.unmap(PAGE, PAGE, shortly()).unwrap();
            // The next owner of the memory relies on it.
            high.write_all_at(&[0x55; 8], 0).unwrap();
            space.unmap_all(shortly()).unwrap();
            low.write_all_at(&[0x55; 8], PAGE - 8).unwrap();
            let mut bytes = [0; 8];
            high.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, [0x55; 8]);
            low.read_exact_at(&mut bytes, PAGE - 8).unwrap();
            assert_eq!(bytes, [0x55; 8]);
        }
    });
}
