//! A device that writes while others read, map and unmap: nothing is lost.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::Iova;
use crate::iommu::state::Core;

/// Pages of the address space, in mappings of a few each.
const END: u64 = 64;
const MAPPING: u64 = 8;
/// Of which the last one comes and goes.
const COMES_AND_GOES: u64 = END - MAPPING;
const ROUNDS: u64 = 200;

/// How a mapping goes.
type Unmap = fn(&Bench, IovaRange);

fn as_it_should(bench: &Bench, range: IovaRange) {
    bench.ioas.unmap(range).unwrap();
}

/// As in a program that reads the bits of what it unmaps, and then unmaps it, while the device writes.
fn read_then_unmap(bench: &Bench, range: IovaRange) {
    let core: &Core = bench.ioas.core();
    let mut bytes = vec![0; 8];
    let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes).unwrap();
    let mut state = core.state.lock();
    core.peek(&state, &mut report).unwrap();
    thread::yield_now();
    core.kernel.unmap(core.ioas, range).unwrap();
    state.mappings.remove(&range);
    for page in COMES_AND_GOES..END {
        if report.is_dirty(Iova::new(page * PAGE)) {
            state.kept.mark(pages(page, 1));
        }
    }
}

/// The pages as they were when they were last reported.
#[derive(Default)]
struct Copies(Mutex<BTreeMap<u64, u64>>);

impl Copies {
    /// Copies what is reported.
    fn update(&self, bench: &Bench) {
        let mut copies = self.0.lock().unwrap();
        for page in bench.report(pages(0, END)) {
            copies.insert(page, bench.machine.content(page));
        }
    }

    /// Those of the pages from `first` on that are not as they were copied.
    fn wrong(&self, bench: &Bench, first: u64) -> Vec<u64> {
        let copies = self.0.lock().unwrap();
        (first..END)
            .filter(|page| copies.get(page).copied().unwrap_or(0) != bench.machine.content(*page))
            .collect()
    }
}

/// The pages whose copies are wrong when nobody can write them any more: of a mapping that has gone, and of all of them
/// once the device has stopped.
fn pages_lost(bench: &Bench, unmap: Unmap) -> Vec<u64> {
    for first in (0..END).step_by(MAPPING as usize) {
        bench.map(pages(first, MAPPING));
    }
    bench.start(&[pages(0, END)]);
    let stop = AtomicBool::new(false);
    let copies = Copies::default();
    let mut lost = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1.. {
                bench.device.write(value % END, value);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                copies.update(bench);
            }
        });
        for _ in 0..ROUNDS {
            let range = pages(COMES_AND_GOES, MAPPING);
            unmap(bench, range);
            copies.update(bench);
            lost.extend(copies.wrong(bench, COMES_AND_GOES));
            bench.map(range);
        }
        stop.store(true, Ordering::Relaxed);
    });
    copies.update(bench);
    lost.extend(copies.wrong(bench, 0));
    lost
}

#[test]
fn no_page_is_lost_between_writes_reads_and_unmaps() {
    for leaves in [Leaves::Small, Leaves::Large] {
        let bench = Bench::new(DirtyControl::Global, leaves);
        assert_eq!(pages_lost(&bench, as_it_should), [0; 0], "{leaves:?}");
    }
}

#[test]
fn the_race_catches_bits_that_are_cleared_before_they_are_read() {
    let bench = Bench::small();
    bench.machine.set_fault(Fault::ClearFirst);
    assert!(!pages_lost(&bench, as_it_should).is_empty());
}

#[test]
fn the_race_catches_an_unmap_that_trusts_its_last_look_at_the_bits() {
    assert!(!pages_lost(&Bench::small(), read_then_unmap).is_empty());
}
