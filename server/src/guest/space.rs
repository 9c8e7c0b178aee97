//! [`DmaSpace`]: the owner's side of one connection's guest memory.

mod failure;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crossbeam_utils::sync::{ShardedLock, ShardedLockWriteGuard};
use pagetrail_tracker::{IovaRange, SoftwareTracker};

use super::file::Shrink;
use super::lease::Leases;
use super::mapping::Mapping;
use super::table::{self, Backing, Table};
use super::{Access, AllowedFiles, Dma, DmaError, MapError, MapRefusal, Share, SuspendError, UnmapError};
use failure::Failure;

/// A region of guest memory as a client offers it.
#[derive(Debug)]
pub struct MapRequest {
    /// First IOVA; a multiple of 4 KiB.
    pub iova: u64,
    /// Bytes; a multiple of 4 KiB, not zero.
    pub size: u64,
    /// Where it begins in the file, in bytes; a multiple of 4 KiB.
    pub offset: u64,
    /// What the device may do with it.
    pub access: Access,
    /// The file. Without one the region is known and cannot be reached.
    pub fd: Option<OwnedFd>,
}

/// The bus master enable bit of the device's command register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusMaster {
    /// The device may do DMA.
    On,
    /// It may not.
    Off,
}

impl From<bool> for BusMaster {
    fn from(bit: bool) -> Self {
        if bit { Self::On } else { Self::Off }
    }
}

/// Guest memory of one connection: what is mapped, and whether the device may reach it.
///
/// A new one is empty, resumed, and has bus mastering off. What is left of it is unmapped when it is dropped;
/// [`Dma`] handles may outlive it, and reach nothing any more.
#[derive(Debug)]
pub struct DmaSpace {
    space: Arc<Space>,
    files: AllowedFiles,
    share: Share,
    warned_of_truncation: AtomicBool,
}

impl DmaSpace {
    /// Writes are marked in `tracker`; memory must be in `files`, and what it takes comes out of `share`.
    pub fn new(tracker: Arc<SoftwareTracker>, files: AllowedFiles, share: Share) -> Self {
        Self {
            space: Arc::new(Space::new(tracker)),
            files,
            share,
            warned_of_truncation: AtomicBool::new(false),
        }
    }

    /// A handle for the device.
    pub fn dma(&self) -> Dma {
        Dma::new(Arc::clone(&self.space))
    }

    /// Adds a mapping.
    ///
    /// # Errors
    ///
    /// [`MapError`]; nothing is mapped then.
    pub fn map(&self, request: MapRequest) -> Result<(), MapError> {
        let (iova, size) = (request.iova, request.size);
        self.try_map(request)
            .map_err(|reason| MapError { iova, size, reason })
    }

    fn try_map(&self, request: MapRequest) -> Result<(), MapRefusal> {
        let range = table::range_of(request.iova, request.size, request.offset)?;
        let backing = match request.fd {
            Some(file) => {
                let (mapping, shrink) = Mapping::new(
                    file.as_fd(),
                    request.offset,
                    request.size,
                    request.access,
                    self.files,
                    &self.share,
                )?;
                self.warn_of_truncation(shrink);
                Backing::Memory(Arc::new(mapping))
            }
            None => Backing::Unreachable,
        };
        self.space.write().table.insert(range, request.access, backing)
    }

    fn warn_of_truncation(&self, shrink: Shrink) {
        if shrink == Shrink::Possible && !self.warned_of_truncation.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "guest memory is not sealed against truncation: a client that truncates it is dropped \
                 (QEMU: -object memory-backend-memfd seals it)"
            );
        }
    }

    /// Takes a mapping away. Once it has returned, no access to it is under way and none begins. Its dirty
    /// bits stay.
    ///
    /// # Errors
    ///
    /// [`UnmapError`]: no such mapping, or a lease of it is held at `deadline`.
    pub fn unmap(&self, iova: u64, size: u64, deadline: Instant) -> Result<(), UnmapError> {
        // To hold the lock is to have no access under way.
        let range = self.space.write().table.close(iova, size)?;
        self.settle(range, deadline)?;
        let removed = self.space.write().table.remove(range);
        // Given back to the kernel only now: that may take a while, and the lock is free again.
        drop(removed);
        Ok(())
    }

    /// Takes all mappings away, as [`unmap`](Self::unmap) does.
    ///
    /// # Errors
    ///
    /// [`UnmapError`] when a lease is held at `deadline`.
    pub fn unmap_all(&self, deadline: Instant) -> Result<(), UnmapError> {
        self.space.write().table.close_all();
        self.settle(IovaRange::ALL, deadline)?;
        let removed = self.space.write().table.remove_all();
        drop(removed);
        Ok(())
    }

    /// Waits for what outlasts a single access.
    fn settle(&self, range: IovaRange, deadline: Instant) -> Result<(), UnmapError> {
        self.space.drain();
        let waited = self.space.leases.wait(range, deadline);
        waited.map_err(|lease| UnmapError::Leased(lease.start().get()))
    }

    /// Stops DMA: once it has returned, no access is under way and none begins before [`resume`](Self::resume).
    /// Idempotent.
    ///
    /// # Errors
    ///
    /// [`SuspendError`] when a lease is held at `deadline`. New accesses are refused all the same.
    pub fn suspend(&self, deadline: Instant) -> Result<(), SuspendError> {
        self.space.write().flow = Flow::Suspended;
        self.space.drain();
        let waited = self.space.leases.wait(IovaRange::ALL, deadline);
        waited.map_err(|lease| SuspendError {
            iova: lease.start().get(),
        })
    }

    /// Lets DMA go on. Idempotent.
    pub fn resume(&self) {
        self.space.write().flow = Flow::Running;
    }

    /// Follows the driver's bus master enable bit. Once it has returned, no access begins with the bit off.
    pub fn set_bus_master(&self, bus_master: BusMaster) {
        self.space.write().bus_master = bus_master;
    }

    /// Has `callback` called once when an access has found that memory is gone: its client should be dropped.
    /// It is called on the thread that made the access, with no lock held; at once if that has happened
    /// already.
    pub fn on_memory_failure(&self, callback: Box<dyn Fn() + Send + Sync>) {
        self.space.failure.on_failure(callback);
    }

    /// Breaks the device's writes from now on.
    #[cfg(feature = "fault-injection")]
    pub fn inject(&self, fault: super::DmaFault) {
        self.space.inject(fault);
    }
}

impl Drop for DmaSpace {
    fn drop(&mut self) {
        let mut state = self.space.write();
        state.flow = Flow::Suspended;
        state.table.close_all();
        let removed = state.table.remove_all();
        drop(state);
        self.space.drain();
        drop(removed);
    }
}

/// Whether DMA flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Running,
    Suspended,
}

/// What an access must not see change.
#[derive(Debug)]
pub(super) struct State {
    table: Table,
    flow: Flow,
    bus_master: BusMaster,
}

impl State {
    /// The mappings, if the device may use them now.
    #[inline]
    fn admit(&self) -> Result<&Table, DmaError> {
        if self.flow == Flow::Suspended {
            return Err(DmaError::Stopped);
        }
        if self.bus_master == BusMaster::Off {
            return Err(DmaError::BusMasterOff);
        }
        Ok(&self.table)
    }
}

/// What the owner and the device's handles share.
pub(super) struct Space {
    pub(super) tracker: Arc<SoftwareTracker>,
    pub(super) leases: Leases,
    /// An access holds one shard from its check to its mark; the owner takes all of them, which takes as long
    /// as the accesses under way: a copy of memory at most.
    state: ShardedLock<State>,
    failure: Failure,
    warned_of_unreachable: AtomicBool,
    #[cfg(feature = "fault-injection")]
    pub(super) fault: std::sync::OnceLock<super::fault::Injected>,
}

impl Space {
    fn new(tracker: Arc<SoftwareTracker>) -> Self {
        Self {
            tracker,
            leases: Leases::default(),
            state: ShardedLock::new(State {
                table: Table::default(),
                flow: Flow::Running,
                bus_master: BusMaster::Off,
            }),
            failure: Failure::default(),
            warned_of_unreachable: AtomicBool::new(false),
            #[cfg(feature = "fault-injection")]
            fault: std::sync::OnceLock::new(),
        }
    }

    /// Makes one access, during which nothing is unmapped or suspended. It must not make another: a thread
    /// that waits to unmap would keep that one out.
    #[inline]
    pub(super) fn access<R>(
        &self,
        access: impl FnOnce(&Table) -> Result<R, DmaError>,
    ) -> Result<R, DmaError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let result = state.admit().and_then(access);
        drop(state);
        result.inspect_err(|&error| self.note(error))
    }

    /// No access is under way while the guard is held.
    fn write(&self) -> ShardedLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever must know about a failed access. Called without locks.
    #[cold]
    pub(super) fn note(&self, error: DmaError) {
        match error {
            DmaError::MemoryFailed(iova) => self.failure.report(iova),
            DmaError::Unreachable(iova) if !self.warned_of_unreachable.swap(true, Ordering::Relaxed) => {
                tracing::warn!(
                    iova = format_args!("{iova:#x}"),
                    "guest memory came without a file descriptor and cannot be reached: start QEMU with \
                     `-object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram`"
                );
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
