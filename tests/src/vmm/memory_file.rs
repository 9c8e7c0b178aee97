//! Files that hold guest memory.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, ftruncate, memfd_create, seek};
use rustix::io::Errno;

/// What kind of memfd holds the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Sealed against shrinking, as QEMU's are.
    #[default]
    Sealed,
    /// Can be truncated under the server.
    Unsealed,
}

/// Makes a memfd of `size` bytes, all holes.
///
/// # Errors
///
/// What the system says, for example `ENOSPC`.
pub fn memory_file(size: u64, backing: Backing) -> io::Result<File> {
    let fd = memfd_create("guest-memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, size)?;
    if backing == Backing::Sealed {
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    }
    Ok(File::from(fd))
}

/// The parts of `range` (offsets in `file`) that hold data. What is between them reads as zero and was never touched:
/// looking for it would allocate it.
pub(crate) fn data_extents(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut extents = Vec::new();
    let mut position = range.start;
    while position < range.end {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) if start < range.end => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(range.end);
        extents.push(start..end);
        position = end;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{Backing, data_extents, memory_file};

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn only_what_was_written_is_data() {
        let file = memory_file(1 << 20, Backing::Sealed).expect("a memfd");
        file.write_all_at(&[1], 0x5000).expect("a write");
        file.write_all_at(&[1], 0x6fff).expect("a write");
        let extents = |range| data_extents(&file, range).expect("extents");
        assert_eq!(extents(0..1 << 20), vec![0x5000..0x7000]);
        assert_eq!(extents(0x6000..0x10000), vec![0x6000..0x7000]);
        assert_eq!(extents(0x8000..0x10000), []);
    }

    #[test]
    fn a_sealed_file_cannot_shrink() {
        let sealed = memory_file(8192, Backing::Sealed).expect("a memfd");
        assert!(sealed.set_len(4096).is_err());
        let unsealed = memory_file(8192, Backing::Unsealed).expect("a memfd");
        assert!(unsealed.set_len(4096).is_ok());
    }
}
