//! A guest's memory from outside of its VM: the memfd that QEMU shares with device servers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pagetrail_guest::{Memory, PAGE_SIZE};

/// What QEMU calls the file.
const NAME: &str = "/memfd:memory-backend-memfd";

/// The memory of one guest. It stays readable when the VM has ended.
///
/// Addresses are the guest's: there is no hole as long as all of its memory lies below 2 GiB.
#[derive(Debug)]
pub struct GuestRam {
    file: File,
    size: u64,
}

/// Pages that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Pages that differ.
    pub pages: usize,
    /// The first of them, by address.
    pub first: Vec<u64>,
}

/// How many pages of a [`Difference`] are named.
const NAMED: usize = 8;

impl GuestRam {
    /// Opens the memory of the QEMU with this process id.
    ///
    /// # Errors
    ///
    /// The process has none that is shared, or has ended.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            if is_memory(&path) {
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                return Ok(Self { file, size });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "QEMU has no memory-backend-memfd with share=on",
        ))
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file.
    ///
    /// # Errors
    ///
    /// No descriptor is to be had.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Compares two guests' memories byte by byte; nothing may be writing either. `None`: they are equal.
    ///
    /// # Errors
    ///
    /// One cannot be read, or they differ in size.
    pub fn difference(&self, other: &Self) -> io::Result<Option<Difference>> {
        const CHUNK: u64 = 1 << 20;
        if self.size != other.size {
            return Err(io::Error::other("memories of different sizes"));
        }
        let (mut ours, mut theirs) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
        let mut found = Difference {
            pages: 0,
            first: Vec::new(),
        };
        for start in (0..self.size).step_by(CHUNK as usize) {
            let length = CHUNK.min(self.size - start) as usize;
            self.file.read_exact_at(&mut ours[..length], start)?;
            other.file.read_exact_at(&mut theirs[..length], start)?;
            if ours[..length] == theirs[..length] {
                continue;
            }
            let pages = ours[..length]
                .chunks(PAGE_SIZE as usize)
                .zip(theirs[..length].chunks(PAGE_SIZE as usize));
            for (number, (ours, theirs)) in (0..).zip(pages) {
                if ours != theirs {
                    found.pages += 1;
                    found.first.push(start + number * PAGE_SIZE);
                }
            }
            found.first.truncate(NAMED);
        }
        Ok((found.pages > 0).then_some(found))
    }
}

fn is_memory(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(NAME))
}

impl Memory for GuestRam {
    type Error = io::Error;

    fn read(&self, iova: u64, target: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(target, iova)
    }

    fn write(&self, _iova: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn load_acquire(&self, iova: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read(iova, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages differ, first:", self.pages)?;
        for page in &self.first {
            write!(f, " {page:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{Difference, GuestRam};
    use crate::vmm::{Backing, memory_file};

    fn ram(size: u64) -> GuestRam {
        let file = memory_file(size, Backing::Sealed).expect("a memfd");
        GuestRam { file, size }
    }

    #[test]
    fn one_byte_that_differs_is_found() {
        let (one, other) = (ram(5 << 20), ram(5 << 20));
        assert_eq!(one.difference(&other).expect("memory"), None);
        one.file.write_all_at(&[1], 0x30_1fff).expect("a write");
        let difference = one.difference(&other).expect("memory").expect("a difference");
        assert_eq!(
            difference,
            Difference {
                pages: 1,
                first: vec![0x30_1000]
            }
        );
    }
}
