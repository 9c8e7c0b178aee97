//! Which pages of a file changed since it was last read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64;

use crate::vmm::{PAGE_SIZE, data_extents};

/// Bytes that are read at once: few system calls, and still within a processor's cache.
const CHUNK: u64 = 256 << 10;

/// Stands for a page of zeros, and for a hole of the file.
const ZERO: u64 = 0;

/// The pages of one file, as they were when it was last read.
///
/// The file is read and not mapped: a hole stays a hole, and a file that shrinks is an error and no signal. Memory that was
/// never touched costs nothing, on either side.
#[derive(Debug)]
pub struct PageScan {
    hashes: Vec<u64>,
    hash_of_zeros: u64,
    buffer: Vec<u8>,
}

impl PageScan {
    /// Takes in a file of `size` bytes: changes are told from what it holds now.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn new(file: &File, size: u64) -> io::Result<Self> {
        let mut scan = Self {
            hashes: vec![ZERO; size.div_ceil(PAGE_SIZE) as usize],
            hash_of_zeros: xxh3_64(&[0; PAGE_SIZE as usize]),
            buffer: vec![0; CHUNK as usize],
        };
        scan.changes(file, |_| ())?;
        Ok(scan)
    }

    /// Calls `changed` with the offset of each page that holds something else than it did the last time.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has become shorter.
    pub fn changes(&mut self, file: &File, mut changed: impl FnMut(u64)) -> io::Result<()> {
        let size = self.hashes.len() as u64 * PAGE_SIZE;
        let mut position = 0;
        for extent in data_extents(file, 0..size)? {
            let data = page_start(extent.start)..page_end(extent.end);
            self.emptied(position..data.start, &mut changed);
            self.read(file, data.clone(), &mut changed)?;
            position = data.end;
        }
        self.emptied(position..size, &mut changed);
        Ok(())
    }

    fn read(&mut self, file: &File, range: Range<u64>, changed: &mut impl FnMut(u64)) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut position = range.start;
        while position < range.end {
            let length = CHUNK.min(range.end - position) as usize;
            file.read_exact_at(&mut buffer[..length], position)?;
            for (index, page) in buffer[..length].chunks(PAGE_SIZE as usize).enumerate() {
                let hash = self.hash(page);
                self.put(position + index as u64 * PAGE_SIZE, hash, changed);
            }
            position += length as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// The range is a hole.
    fn emptied(&mut self, range: Range<u64>, changed: &mut impl FnMut(u64)) {
        for offset in range.step_by(PAGE_SIZE as usize) {
            self.put(offset, ZERO, changed);
        }
    }

    fn put(&mut self, offset: u64, hash: u64, changed: &mut impl FnMut(u64)) {
        let slot = &mut self.hashes[(offset / PAGE_SIZE) as usize];
        // Memory of the table that stands for untouched pages is not touched either.
        if *slot != hash {
            *slot = hash;
            changed(offset);
        }
    }

    fn hash(&self, page: &[u8]) -> u64 {
        match xxh3_64(page) {
            hash if hash == self.hash_of_zeros => ZERO,
            hash => hash.max(ZERO + 1),
        }
    }
}

fn page_start(offset: u64) -> u64 {
    offset - offset % PAGE_SIZE
}

fn page_end(offset: u64) -> u64 {
    offset.next_multiple_of(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use proptest::prelude::*;
    use rustix::fs::{FallocateFlags, fallocate};

    use super::{PAGE_SIZE, PageScan};
    use crate::vmm::{Backing, memory_file};

    const PAGES: u64 = 200;

    fn file() -> File {
        memory_file(PAGES * PAGE_SIZE, Backing::Unsealed).expect("a memfd")
    }

    fn scan(file: &File) -> PageScan {
        PageScan::new(file, PAGES * PAGE_SIZE).expect("it can be read")
    }

    fn changes(scan: &mut PageScan, file: &File) -> Vec<u64> {
        let mut pages = Vec::new();
        scan.changes(file, |offset| pages.push(offset / PAGE_SIZE))
            .expect("it can be read");
        pages
    }

    #[test]
    fn nothing_changed_where_nothing_was_written() {
        let file = file();
        file.write_all_at(&[7; 5000], 3 * PAGE_SIZE).expect("a write");
        let mut scan = scan(&file);
        assert_eq!(
            changes(&mut scan, &file),
            [0; 0],
            "what was there at the start is no change"
        );
        file.write_all_at(&[7; 100], 3 * PAGE_SIZE).expect("a write");
        assert_eq!(changes(&mut scan, &file), [0; 0], "the same content is no change");
        file.write_all_at(&[0; 100], 9 * PAGE_SIZE).expect("a write");
        assert_eq!(changes(&mut scan, &file), [0; 0], "zeros in a hole are no change");
    }

    #[test]
    fn a_page_that_becomes_a_hole_has_changed() {
        let file = file();
        file.write_all_at(&[7; 3 * PAGE_SIZE as usize], 4 * PAGE_SIZE)
            .expect("a write");
        let mut scan = scan(&file);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, punch, 5 * PAGE_SIZE, PAGE_SIZE).expect("a hole");
        assert_eq!(changes(&mut scan, &file), [5]);
        assert_eq!(changes(&mut scan, &file), [0; 0]);
    }

    #[test]
    fn looking_allocates_no_memory() {
        let file = file();
        let mut scan = scan(&file);
        changes(&mut scan, &file);
        assert_eq!(file.metadata().expect("metadata").blocks(), 0);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let file = file();
        file.write_all_at(&[7], 0).expect("a write");
        let mut scan = scan(&file);
        file.set_len(10).expect("it shrinks");
        assert!(scan.changes(&file, |_| ()).is_err());
    }

    proptest! {
        #[test]
        fn exactly_the_pages_that_hold_something_else_have_changed(
            rounds in prop::collection::vec(
                prop::collection::vec((0_u64..PAGES * PAGE_SIZE - 9000, 0_u8..3, 1_usize..9000), 0..8),
                1..6,
            ),
        ) {
            let file = file();
            let mut scan = scan(&file);
            let mut model = vec![0_u8; (PAGES * PAGE_SIZE) as usize];
            for writes in rounds {
                let before = model.clone();
                for (offset, value, length) in writes {
                    let data = vec![value; length];
                    file.write_all_at(&data, offset).expect("a write");
                    model[offset as usize..offset as usize + length].copy_from_slice(&data);
                }
                let page = |index: u64| (index * PAGE_SIZE) as usize..((index + 1) * PAGE_SIZE) as usize;
                let expected: BTreeSet<u64> =
                    (0..PAGES).filter(|index| before[page(*index)] != model[page(*index)]).collect();
                let found: BTreeSet<u64> = changes(&mut scan, &file).into_iter().collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
