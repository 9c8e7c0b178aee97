//! [`VmMemory`]: the kernel's address space of a VM, which the connections of its passthrough devices share.
//!
//! Each device's client maps the VM's memory by its own messages, in its own time, and the kernel's address space has room for
//! one of a kind. So
//! - the same memory at the same addresses is mapped once, and goes with the last connection that has it;
//! - a mapping in whose way others are waits for their connections to take them away, but not for ever.
//!
//! What the kernel does not unmap when its last connection goes stays here, with what it takes of the VM's share, as long as the VM has
//! clients.
//!
//! A device can therefore still reach what its own client has unmapped and another device's client has not, which follows at once in
//! any client that unmaps memory for all devices of a VM. What it writes there until then is reported.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::{Access, IommuError, IovaRange, KernelIoas};
use parking_lot::{Condvar, Mutex};

use crate::guest::Reservation;

/// The calls of the address space itself.
pub(super) trait AddressSpace: Send + Sync + fmt::Debug {
    /// See [`KernelIoas::map_when_free`]; `file` has the content.
    fn map(
        &self,
        range: IovaRange,
        file: &File,
        content: Content,
        patience: Duration,
    ) -> Result<(), IommuError>;

    /// See [`KernelIoas::unmap`].
    fn unmap(&self, range: IovaRange) -> Result<(), IommuError>;
}

impl AddressSpace for KernelIoas {
    fn map(
        &self,
        range: IovaRange,
        file: &File,
        Content { offset, access, .. }: Content,
        patience: Duration,
    ) -> Result<(), IommuError> {
        self.map_when_free(range, file, offset, access, patience)
    }

    fn unmap(&self, range: IovaRange) -> Result<(), IommuError> {
        KernelIoas::unmap(self, range)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct VmMemory {
    space: Arc<dyn AddressSpace>,
    /// By first and last IOVA. Those that are in the making may overlap others.
    mapped: Mutex<BTreeMap<(u64, u64), Mapped>>,
    /// A mapping was made, was not made, or has gone.
    changed: Condvar,
}

/// Memory, as far as two mappings of it are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// The file's device and inode.
    pub(super) file: (u64, u64),
    /// Where it begins in the file, in bytes.
    pub(super) offset: u64,
    pub(super) access: Access,
}

#[derive(Debug)]
struct Mapped {
    content: Content,
    phase: Phase,
    /// What connections took for it that have gone without it.
    left_behind: Vec<Reservation>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The kernel is about to map it.
    Making,
    /// So many connections have it.
    Made(usize),
}

impl VmMemory {
    /// Nothing is mapped in `space` yet, and nobody else maps there.
    pub(super) fn new(space: Arc<dyn AddressSpace>) -> Self {
        Self {
            space,
            mapped: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Maps memory, or takes part in the same mapping of another connection. Waits for up to `patience` for what is in the way.
    ///
    /// # Errors
    ///
    /// As of [`KernelIoas::map_when_free`].
    pub(super) fn map(
        &self,
        range: IovaRange,
        file: &File,
        content: Content,
        patience: Duration,
    ) -> Result<(), IommuError> {
        let deadline = Instant::now() + patience;
        if self.join(range, content, deadline)? == Joined::Another {
            return Ok(());
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        let made = self.space.map(range, file, content, patience);
        let mut mapped = self.mapped.lock();
        match &made {
            Ok(()) => {
                if let Some(mapping) = mapped.get_mut(&key(range)) {
                    mapping.phase = Phase::Made(1);
                }
            }
            Err(_) => drop(mapped.remove(&key(range))),
        }
        self.changed.notify_all();
        made
    }

    /// Takes part in a mapping that is there, or sets about making one.
    fn join(&self, range: IovaRange, content: Content, deadline: Instant) -> Result<Joined, IommuError> {
        let mut mapped = self.mapped.lock();
        loop {
            match mapped.get_mut(&key(range)) {
                None => {
                    let making = Mapped {
                        content,
                        phase: Phase::Making,
                        left_behind: Vec::new(),
                    };
                    mapped.insert(key(range), making);
                    return Ok(Joined::None);
                }
                Some(Mapped {
                    content: there,
                    phase: Phase::Made(holders),
                    ..
                }) if *there == content => {
                    *holders += 1;
                    return Ok(Joined::Another);
                }
                // Somebody else's memory is there, or the mapping may yet fail.
                Some(_) => {
                    if self.changed.wait_until(&mut mapped, deadline).timed_out() {
                        return Err(IommuError::Mapped(range));
                    }
                }
            }
        }
    }

    /// Ends a connection's part in the mapping of `range`, and the mapping with the last one.
    ///
    /// # Errors
    ///
    /// As of [`KernelIoas::unmap`]; the connection has the mapping still.
    pub(super) fn unmap(&self, range: IovaRange) -> Result<(), IommuError> {
        self.let_go(&mut self.mapped.lock(), range)
    }

    /// Ends the part of a connection that goes, which took `reservation` for it.
    ///
    /// # Errors
    ///
    /// As of [`KernelIoas::unmap`]; the mapping stays, and the reservation with it.
    pub(super) fn leave(&self, range: IovaRange, reservation: Reservation) -> Result<(), IommuError> {
        let mut mapped = self.mapped.lock();
        let result = self.let_go(&mut mapped, range);
        if let (Err(_), Some(mapping)) = (&result, mapped.get_mut(&key(range))) {
            mapping.left_behind.push(reservation);
            mapping.phase = Phase::Made(0);
        }
        result
    }

    fn let_go(&self, mapped: &mut BTreeMap<(u64, u64), Mapped>, range: IovaRange) -> Result<(), IommuError> {
        match mapped.get_mut(&key(range)).map(|mapping| &mut mapping.phase) {
            Some(Phase::Made(holders)) if *holders > 1 => {
                *holders -= 1;
                return Ok(());
            }
            Some(Phase::Made(_)) => self.space.unmap(range)?,
            Some(Phase::Making) | None => return Err(IommuError::NotMapped(range)),
        }
        mapped.remove(&key(range));
        self.changed.notify_all();
        Ok(())
    }
}

/// Whose mapping it is.
#[derive(Debug, PartialEq, Eq)]
enum Joined {
    /// One that is there.
    Another,
    /// One that is to be made.
    None,
}

fn key(range: IovaRange) -> (u64, u64) {
    (range.start().get(), range.last().get())
}
