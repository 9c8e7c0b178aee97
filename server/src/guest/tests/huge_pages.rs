//! Guest memory in huge pages: real ones, of which the tests reserve a few.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

use pagetrail_tracker::{DirtyTracker, Iova, IovaRange, PageSize, ReportBitmap, SoftwareTracker};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::super::testing::Guest;
use super::super::{DmaError, MapRefusal};
use super::{Access, MapRequest, PAGE, soon, space};

const HUGE: u64 = 2 << 20;

/// Huge pages that a test needs at most.
const NEEDED: u64 = 4;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Huge pages for one test at a time. The pool is as it was when this is dropped.
struct Pool {
    before: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Pool {
    /// `None` if whoever runs the tests has said that there are none to be had.
    fn reserve() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock();
        if std::env::var_os("PAGETRAIL_TEST_HUGE_PAGES").is_some_and(|value| value == "none") {
            eprintln!("left out, as PAGETRAIL_TEST_HUGE_PAGES says");
            return None;
        }
        let pool = Self {
            before: Self::number("nr_hugepages"),
            _alone: alone,
        };
        if Self::number("free_hugepages") < NEEDED {
            Self::set(pool.before + NEEDED);
        }
        assert!(
            Self::number("free_hugepages") >= NEEDED,
            "there are no huge pages: reserve some (sysctl vm.nr_hugepages=8), or set PAGETRAIL_TEST_HUGE_PAGES=none"
        );
        Some(pool)
    }

    fn number(name: &str) -> u64 {
        let text = std::fs::read_to_string(Path::new(POOL).join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Without the right to it, this does nothing.
    fn set(pages: u64) {
        let _ = std::fs::write(Path::new(POOL).join("nr_hugepages"), pages.to_string());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if Self::number("nr_hugepages") != self.before {
            Self::set(self.before);
        }
    }
}

fn huge_file(pages: u64) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = File::from(rustix::fs::memfd_create("guest", flags).unwrap());
    file.set_len(pages * HUGE).unwrap();
    file
}

fn part(file: &File, iova: u64, offset: u64, size: u64) -> MapRequest {
    MapRequest {
        iova,
        size,
        offset,
        access: Access::Write,
        fd: Some(file.try_clone().unwrap().into()),
    }
}

/// What the guest sees: its own mapping of the file.
fn seen_by_the_guest(file: &File, pages: u64) -> MmapRegion {
    let file = FileOffset::new(file.try_clone().unwrap(), 0);
    MmapRegion::from_file(file, (pages * HUGE) as usize).unwrap()
}

fn is_dirty(tracker: &SoftwareTracker, page: u64) -> bool {
    let range = IovaRange::from_len(Iova::new(page), PAGE).unwrap();
    let mut bytes = vec![0; ReportBitmap::required_len(range, PageSize::SIZE_4K).unwrap()];
    let mut report = ReportBitmap::new(range, PageSize::SIZE_4K, &mut bytes).unwrap();
    tracker.peek(&mut report).unwrap();
    report.is_dirty(range.start())
}

#[test]
fn parts_of_huge_pages_are_mapped_where_a_pc_has_them_and_tracked_by_small_pages() {
    let Some(_pool) = Pool::reserve() else { return };
    let file = huge_file(2);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let memory = seen_by_the_guest(&file, 2);
    let guest = Guest::at(1 << 40, PAGE);
    let (space, dma) = (guest.space(), guest.dma());
    // Below the hole of a PC, above it to the end of the first page and into the second, and the rest at another address.
    let parts = [
        (0, 0, 0xa_0000),
        (0x10_0000, 0x10_0000, HUGE - 0x8_0000),
        (1 << 32, HUGE + 0x8_0000, HUGE - 0x8_0000),
    ];
    for (iova, offset, size) in parts {
        space.map(part(&file, iova, offset, size)).unwrap();
    }
    let tracker = guest.tracker();
    tracker.start(&[IovaRange::ALL], PageSize::SIZE_4K).unwrap();
    for (number, (iova, offset, size)) in parts.into_iter().enumerate() {
        let value = 0x1111_1111 * (number as u32 + 1);
        for at in [0, size - 4] {
            dma.store_u32(iova + at, value, Ordering::Release).unwrap();
            let seen: u32 = memory
                .as_volatile_slice()
                .load((offset + at) as usize, Ordering::Acquire)
                .unwrap();
            assert_eq!(seen, value, "{:#x}", iova + at);
        }
        let outside = dma.write(iova + size - 4, &[0; 8]);
        assert_eq!(outside, Err(DmaError::NotMapped(iova + size)));
    }
    let pages = [0, PAGE, 0x9_f000, 0x10_0000, 0x10_1000, HUGE + 0x7_f000, 1 << 32];
    let dirty: Vec<u64> = pages
        .into_iter()
        .filter(|page| is_dirty(tracker, *page))
        .collect();
    assert_eq!(dirty, [0, 0x9_f000, 0x10_0000, HUGE + 0x7_f000, 1 << 32]);
}

#[test]
fn a_huge_page_that_was_truncated_fails_the_access_and_nothing_else() {
    let Some(_pool) = Pool::reserve() else { return };
    let (file, other) = (huge_file(2), huge_file(1));
    let space = space();
    space.map(part(&file, 0, 0, 2 * HUGE)).unwrap();
    space.map(part(&other, 1 << 32, 0, HUGE)).unwrap();
    let dma = space.dma();
    dma.write(0, &[1; 64]).unwrap();
    dma.write(HUGE + 12345, &[1; 64]).unwrap();
    file.set_len(HUGE).unwrap();
    assert_eq!(
        dma.write(HUGE + 12345, &[1]),
        Err(DmaError::MemoryFailed(HUGE + 12345))
    );
    assert_eq!(dma.read(0, &mut [0]), Err(DmaError::MemoryFailed(0)));
    dma.write(1 << 32, &[1]).unwrap();
    space.unmap(0, 2 * HUGE, soon()).unwrap();
    space.unmap(1 << 32, HUGE, soon()).unwrap();
}

#[test]
fn more_huge_pages_than_there_are_cannot_be_mapped() {
    let Some(_pool) = Pool::reserve() else { return };
    let pages = Pool::number("nr_hugepages") + Pool::number("nr_overcommit_hugepages") + 1;
    let file = huge_file(pages);
    let error = space().map(part(&file, 0, 0, pages * HUGE)).unwrap_err();
    assert_eq!(error.reason, MapRefusal::System(Errno::NOMEM));
    assert_eq!(error.errno(), Errno::NOMEM);
}
