//! [`Mappings`]: what one connection has mapped.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use pagetrail_tracker::{Access, IommuError, IovaRange};
use parking_lot::Mutex;
use rustix::fs::{OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat};
use rustix::io::Errno;

use super::memory::{Content, VmMemory};
use crate::guest::{self, AllowedFiles, MAX_MAPPINGS, MapRefusal, MapRequest, Reservation, Share};

/// How long the unmaps of other connections are waited for. Shorter than the 5 s after which QEMU gives a message up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The mappings of one connection. What is left of them is unmapped when this is dropped, or left to the VM if the kernel refuses.
#[derive(Debug)]
pub(super) struct Mappings {
    memory: Arc<VmMemory>,
    files: AllowedFiles,
    share: Share,
    /// By first IOVA; disjoint.
    mine: Mutex<BTreeMap<u64, Mapping>>,
}

#[derive(Debug)]
struct Mapping {
    range: IovaRange,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    /// The VM's memory has it.
    Memory(Reservation),
    /// Nothing that can be reached: the mapping came without a file.
    Unreachable,
}

/// Why memory is not mapped or unmapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum MappingError {
    /// The request cannot be granted.
    #[error(transparent)]
    Refused(#[from] MapRefusal),
    /// No mapping is exactly this one.
    #[error("it is not mapped")]
    NotMapped,
    /// The kernel does not do it.
    #[error(transparent)]
    Kernel(#[from] IommuError),
}

impl MappingError {
    /// What the client gets.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Refused(refusal) => refusal.errno(),
            Self::NotMapped => Errno::NOENT,
            Self::Kernel(error) => match error {
                IommuError::Mapped(_) => Errno::EXIST,
                IommuError::NotMapped(_) => Errno::NOENT,
                IommuError::OutOfReach(_) | IommuError::Unaligned { .. } => Errno::INVAL,
                IommuError::CannotLock(_) => Errno::NOMEM,
                IommuError::Map { source, .. } | IommuError::Unmap { source, .. } => {
                    Errno::from_io_error(source).unwrap_or(Errno::IO)
                }
                _ => Errno::IO,
            },
        }
    }
}

/// What was mapped of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of it.
    Reachable,
    /// Nothing: it came without a file.
    Unreachable,
}

impl Mappings {
    pub(super) fn new(memory: Arc<VmMemory>, files: AllowedFiles, share: Share) -> Self {
        Self {
            memory,
            files,
            share,
            mine: Mutex::default(),
        }
    }

    /// Lets the VM's devices reach memory.
    ///
    /// # Errors
    ///
    /// [`MappingError`]; nothing is mapped then.
    pub(super) fn map(&self, request: MapRequest) -> Result<Reach, MappingError> {
        let range = guest::range_of(request.iova, request.size, request.offset)?;
        // Requests of a connection come one after the other, so that the table is locked for all of one.
        let mut mine = self.mine.lock();
        if let Some(in_the_way) = overlap(&mine, &range) {
            return Err(MapRefusal::Overlap(in_the_way).into());
        }
        if mine.len() >= MAX_MAPPINGS {
            return Err(MapRefusal::TooMany.into());
        }
        let (backing, reach) = match request.fd {
            None => (Backing::Unreachable, Reach::Unreachable),
            Some(fd) => {
                guest::check_file(fd.as_fd(), request.offset, request.size, self.files)?;
                check_access(fd.as_fd(), request.access)?;
                let reservation = self.share.take(request.size)?;
                let stat = fstat(&fd).map_err(MapRefusal::from)?;
                let content = Content {
                    file: (stat.st_dev, stat.st_ino),
                    offset: request.offset,
                    access: access(request.access),
                };
                self.memory.map(range, &File::from(fd), content, PATIENCE)?;
                (Backing::Memory(reservation), Reach::Reachable)
            }
        };
        mine.insert(range.start().get(), Mapping { range, backing });
        Ok(reach)
    }

    /// Undoes one [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// [`MappingError`]; it is mapped still.
    pub(super) fn unmap(&self, iova: u64, size: u64) -> Result<(), MappingError> {
        let mut mine = self.mine.lock();
        match mine.get(&iova) {
            Some(mapping) if mapping.range.len() == size => self.release(mapping)?,
            _ => return Err(MappingError::NotMapped),
        }
        mine.remove(&iova);
        Ok(())
    }

    /// Undoes every [`map`](Self::map).
    ///
    /// # Errors
    ///
    /// The first [`MappingError`]; what is mapped still is in the table still.
    pub(super) fn unmap_all(&self) -> Result<(), MappingError> {
        let mut result = Ok(());
        self.mine.lock().retain(|_, mapping| {
            let released = self.release(mapping);
            let stays = released.is_err();
            if result.is_ok() {
                result = released;
            }
            stays
        });
        result
    }

    fn release(&self, mapping: &Mapping) -> Result<(), MappingError> {
        match mapping.backing {
            Backing::Memory(_) => Ok(self.memory.unmap(mapping.range)?),
            Backing::Unreachable => Ok(()),
        }
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        for Mapping { range, backing } in std::mem::take(self.mine.get_mut()).into_values() {
            let Backing::Memory(reservation) = backing else {
                continue;
            };
            if let Err(error) = self.memory.leave(range, reservation) {
                tracing::error!(%error, "guest memory is not given back before the VM's last client has gone");
            }
        }
    }
}

/// The first IOVA of a mapping that has a byte in `range`.
fn overlap(mine: &BTreeMap<u64, Mapping>, range: &IovaRange) -> Option<u64> {
    let (start, before) = mine.range(..=range.last().get()).next_back()?;
    before.range.overlaps(range).then_some(*start)
}

/// Checks that a device may do to the file what the client may. `mmap` does so; iommufd does not when it maps files.
fn check_access(file: BorrowedFd<'_>, access: guest::Access) -> Result<(), MapRefusal> {
    let mode = fcntl_getfl(file)? & OFlags::RWMODE;
    let may = match access {
        guest::Access::Read => mode != OFlags::WRONLY,
        guest::Access::Write => mode == OFlags::RDWR,
    };
    if !may {
        return Err(Errno::ACCESS.into());
    }
    // Only files of memory have seals.
    let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    if access == guest::Access::Write && seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(Errno::PERM.into());
    }
    Ok(())
}

fn access(access: guest::Access) -> Access {
    match access {
        guest::Access::Read => Access::Read,
        guest::Access::Write => Access::Write,
    }
}

#[cfg(test)]
mod tests;
