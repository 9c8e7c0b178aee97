//! A device of VFIO's and the kernel's address space in memory, for tests: what they check, and what they remember.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pagetrail_tracker::{Access, IommuError, IovaRange, Witness};
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use super::kernel::{Area, Device, DeviceInfo, IrqData, MigrationFile, Region, SetIrqs};
use super::memory::{AddressSpace, Content};
use super::migration::Place;
use crate::irq::{INFO_NORESIZE, IrqAction, IrqInfo};
use crate::migration::PrecopyInfo;
use crate::wire::region::{CONFIG_REGION, DeviceFlags, RegionFlags};

/// Bytes of BAR 0, of which the second page has the MSI-X table.
pub(super) const BAR_SIZE: u64 = 4 << 12;
/// The regions begin so far apart in the file, as the kernel has them.
pub(super) const STRIDE: u64 = 1 << 40;

/// Where config space has Device Control, by whose highest bit the guest's driver resets the device.
pub(super) const DEVICE_CONTROL: u64 = 0x48;

/// Vectors of MSI, which the kernel wants to be told of at once.
pub(super) const MSI: u32 = 32;

/// A PCI device with one BAR, MSI, MSI-X and a migration.
pub(super) struct FakeDevice {
    file: File,
    state: Mutex<State>,
    /// It was unplugged: the kernel answers nothing about it.
    is_gone: AtomicBool,
    /// Happens as the driver is asked for another migration state.
    at_change: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl fmt::Debug for FakeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeDevice")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) flags: DeviceFlags,
    /// Contents of BAR 0 and of config space.
    regions: BTreeMap<u32, Vec<u8>>,
    /// The requests to set interrupts that were granted: index, first, count, action and how many eventfds.
    pub(super) irqs: Vec<(u32, u32, u32, IrqAction, usize)>,
    /// The eventfds of MSI's vectors, as many as are enabled, and how many the host has for it.
    pub(super) msi: Vec<Option<OwnedFd>>,
    pub(super) msi_available: u32,
    /// What was given for the host's request.
    pub(super) request: Option<OwnedFd>,
    pub(super) resets: usize,
    /// What the command register had at the last reset.
    pub(super) command_at_reset: Option<u16>,
    /// `None` if it does not migrate.
    pub(super) migration: Option<u64>,
    pub(super) reached: u32,
    /// What can be read before it has stopped, and afterwards.
    pub(super) early: Vec<u8>,
    pub(super) late: Vec<u8>,
    /// What was loaded.
    pub(super) loaded: Arc<Mutex<Vec<u8>>>,
    /// The next change of the migration state fails, and leads here.
    pub(super) next_failure: Option<u32>,
}

impl State {
    /// As the kernel does to vectors whose number it fixes.
    fn set_msi(&mut self, request: &SetIrqs<'_>) -> io::Result<()> {
        let first = request.start as usize;
        let end = first + request.count as usize;
        let vectors = &mut self.msi;
        match &request.data {
            IrqData::None if request.count == 0 && !vectors.is_empty() => vectors.clear(),
            IrqData::None if end <= vectors.len() => {
                for vector in vectors[first..end].iter().flatten() {
                    rustix::io::write(vector, &1_u64.to_ne_bytes())?;
                }
            }
            IrqData::Eventfds(_) if vectors.is_empty() && end > self.msi_available as usize => {
                return Err(Errno::NOSPC.into());
            }
            IrqData::Eventfds(fds) if vectors.is_empty() || end <= vectors.len() => {
                vectors.resize_with(end.max(vectors.len()), || None);
                for (vector, fd) in vectors[first..].iter_mut().zip(*fds) {
                    *vector = fd.map(|fd| fd.try_clone_to_owned()).transpose()?;
                }
            }
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }
}

impl FakeDevice {
    pub(super) fn new() -> Arc<Self> {
        let file = rustix::fs::memfd_create("device", MemfdFlags::CLOEXEC).unwrap();
        let state = State {
            flags: DeviceFlags::PCI | DeviceFlags::RESET,
            regions: BTreeMap::from([(0, vec![0; BAR_SIZE as usize]), (CONFIG_REGION, config_space())]),
            irqs: Vec::new(),
            msi: Vec::new(),
            msi_available: MSI,
            request: None,
            resets: 0,
            command_at_reset: None,
            migration: Some(0b111),
            reached: 2,
            early: b"early".to_vec(),
            late: b"late".to_vec(),
            loaded: Arc::default(),
            next_failure: None,
        };
        Arc::new(Self {
            file: file.into(),
            state: Mutex::new(state),
            is_gone: AtomicBool::new(false),
            at_change: Mutex::default(),
        })
    }

    /// Unplugs it.
    pub(super) fn unplug(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(Errno::NODEV.into());
        }
        Ok(())
    }

    /// Has `event` happen whenever the driver is asked for another migration state.
    pub(super) fn at_change(&self, event: impl FnMut() + Send + 'static) {
        *self.at_change.lock() = Some(Box::new(event));
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// The host wants the device back.
    pub(super) fn request_back(&self) {
        let state = self.state.lock();
        let event = state.request.as_ref().expect("somebody listens");
        rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
    }
}

/// Vendor 0x1af4, device 0x1105, with MSI-X of 4 vectors at 0x1010 of BAR 0.
fn config_space() -> Vec<u8> {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0xf4, 0x1a, 0x05, 0x11]);
    config[0x06] = 1 << 4;
    config[0x2c..0x30].copy_from_slice(&[1, 2, 3, 4]);
    config[0x34] = 0x40;
    config[0x40..0x44].copy_from_slice(&[0x01, 0x60, 0, 0]);
    config[0x60..0x68].copy_from_slice(&[0x11, 0, 3, 0, 0x10, 0x10, 0, 0]);
    config
}

impl Device for FakeDevice {
    fn info(&self) -> io::Result<DeviceInfo> {
        self.check()?;
        Ok(DeviceInfo {
            flags: self.state.lock().flags,
            regions: 9,
            irqs: 5,
        })
    }

    fn region(&self, index: u32) -> io::Result<Region> {
        self.check()?;
        let state = self.state.lock();
        let Some(content) = state.regions.get(&index) else {
            return Ok(Region::default());
        };
        let mut flags = RegionFlags::READ | RegionFlags::WRITE;
        if index == 0 {
            flags |= RegionFlags::MMAP;
        }
        Ok(Region {
            flags,
            size: content.len() as u64,
            offset: u64::from(index) * STRIDE,
            areas: None,
        })
    }

    fn irq(&self, index: u32) -> io::Result<IrqInfo> {
        self.check()?;
        let (flags, count) = match index {
            0 | 4 => (1, 1),
            1 => (1 | INFO_NORESIZE, MSI),
            2 => (1, 4),
            3 => return Err(Errno::INVAL.into()),
            _ => (1, 0),
        };
        Ok(IrqInfo { flags, count })
    }

    fn set_irqs(&self, request: &SetIrqs<'_>) -> io::Result<()> {
        self.check()?;
        let mut state = self.state.lock();
        let fds = match &request.data {
            IrqData::Eventfds(fds) => fds.iter().flatten().count(),
            IrqData::None | IrqData::Bool(_) => 0,
        };
        match request.index {
            1 => state.set_msi(request)?,
            4 => {
                state.request = match &request.data {
                    IrqData::Eventfds([Some(fd)]) => Some(fd.try_clone_to_owned()?),
                    _ => None,
                };
            }
            _ => {}
        }
        state
            .irqs
            .push((request.index, request.start, request.count, request.action, fds));
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        self.check()?;
        let mut state = self.state.lock();
        state.resets += 1;
        state.reached = 2;
        let config = &state.regions[&CONFIG_REGION];
        state.command_at_reset = Some(u16::from_le_bytes([config[4], config[5]]));
        Ok(())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check()?;
        let state = self.state.lock();
        let content = state.regions.get(&((offset / STRIDE) as u32));
        let content = content.ok_or(Errno::INVAL)?;
        let start = (offset % STRIDE) as usize;
        // The kernel's config space is read in parts.
        let len = out.len().min(8).min(content.len() - start);
        out[..len].copy_from_slice(&content[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.check()?;
        let mut state = self.state.lock();
        let content = state.regions.get_mut(&((offset / STRIDE) as u32));
        let content = content.ok_or(Errno::INVAL)?;
        let start = (offset % STRIDE) as usize;
        let len = data.len().min(8);
        content[start..start + len].copy_from_slice(&data[..len]);
        let is_reset = offset == u64::from(CONFIG_REGION) * STRIDE + DEVICE_CONTROL && data[1] & 1 << 7 != 0;
        if is_reset {
            state.resets += 1;
            state.reached = 2;
        }
        Ok(len)
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn migration_flags(&self) -> io::Result<u64> {
        self.check()?;
        self.state.lock().migration.ok_or(Errno::NOTTY.into())
    }

    fn migration_state(&self) -> io::Result<u32> {
        self.check()?;
        Ok(self.state.lock().reached)
    }

    fn set_migration_state(&self, to: u32) -> io::Result<Option<Box<dyn MigrationFile>>> {
        self.check()?;
        if let Some(event) = &mut *self.at_change.lock() {
            event();
        }
        let mut state = self.state.lock();
        if let Some(reached) = state.next_failure.take() {
            state.reached = reached;
            return Err(Errno::IO.into());
        }
        let from = std::mem::replace(&mut state.reached, to);
        let loaded = Arc::clone(&state.loaded);
        Ok(match (from, to) {
            // From pre-copy the file goes on, with what is known only now.
            (6 | 7, 3) => {
                let late = std::mem::take(&mut state.late);
                loaded.lock().extend(late);
                loaded.lock().push(0);
                None
            }
            (6 | 7, 6 | 7) => None,
            (_, 6 | 7) => {
                *loaded.lock() = std::mem::take(&mut state.early);
                Some(Box::new(FakeData(loaded)))
            }
            (_, 3) => {
                *loaded.lock() = [&state.late[..], &[0]].concat();
                Some(Box::new(FakeData(loaded)))
            }
            (_, 4) => {
                loaded.lock().clear();
                Some(Box::new(FakeData(loaded)))
            }
            _ => None,
        })
    }

    fn migration_data_size(&self) -> io::Result<u64> {
        self.check()?;
        Ok(100)
    }
}

/// Data that ends with a zero.
#[derive(Debug)]
pub(super) struct FakeData(pub(super) Arc<Mutex<Vec<u8>>>);

impl MigrationFile for FakeData {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        let mut left = self.0.lock();
        if left.is_empty() {
            return Err(Errno::NOMSG.into());
        }
        if *left == [0] {
            return Ok(0);
        }
        let end = left.iter().position(|byte| *byte == 0).unwrap_or(left.len());
        let len = out.len().min(3).min(end);
        out[..len].copy_from_slice(&left[..len]);
        left.drain(..len);
        Ok(len)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(3);
        if data[..len].contains(&b'!') {
            return Err(Errno::INVAL.into());
        }
        self.0.lock().extend(&data[..len]);
        Ok(len)
    }

    fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        Ok(PrecopyInfo {
            initial_bytes: self.0.lock().len() as u64,
            dirty_bytes: 0,
        })
    }
}

/// Has the witness of what holds the device quiet.
#[derive(Debug, Default)]
pub(super) struct FakePlace(Mutex<Weak<Held>>);

/// Holds the device quiet.
#[derive(Debug)]
struct Held(Arc<dyn Witness>);

impl FakePlace {
    /// Whether the device is held quiet, and is.
    pub(super) fn is_quiet(&self) -> bool {
        let held = self.0.lock().upgrade();
        held.is_some_and(|held| held.0.is_quiet())
    }

    /// Whether the device is held quiet.
    pub(super) fn is_held(&self) -> bool {
        self.0.lock().upgrade().is_some()
    }
}

impl Place for FakePlace {
    fn quiesce(&self, witness: Arc<dyn Witness>) -> Box<dyn Send> {
        let held = Arc::new(Held(witness));
        *self.0.lock() = Arc::downgrade(&held);
        Box::new(held)
    }
}

/// The kernel's address space: ranges that do not overlap.
#[derive(Debug, Default)]
pub(super) struct FakeSpace {
    pub(super) mapped: Mutex<Vec<(IovaRange, Access)>>,
    freed: Condvar,
    /// The next map fails with this.
    pub(super) next_failure: Mutex<Option<Errno>>,
    /// Nothing is unmapped.
    pub(super) keeps_all: AtomicBool,
}

impl AddressSpace for FakeSpace {
    fn map(
        &self,
        range: IovaRange,
        _file: &File,
        content: Content,
        patience: Duration,
    ) -> Result<(), IommuError> {
        if let Some(errno) = self.next_failure.lock().take() {
            return Err(match errno {
                Errno::NOMEM => IommuError::CannotLock(range),
                errno => IommuError::Map {
                    range,
                    source: errno.into(),
                },
            });
        }
        let deadline = Instant::now() + patience;
        let mut mapped = self.mapped.lock();
        while mapped.iter().any(|(other, _)| other.overlaps(&range)) {
            if self.freed.wait_until(&mut mapped, deadline).timed_out() {
                return Err(IommuError::Mapped(range));
            }
        }
        mapped.push((range, content.access));
        Ok(())
    }

    fn unmap(&self, range: IovaRange) -> Result<(), IommuError> {
        if self.keeps_all.load(Ordering::Relaxed) {
            let source = Errno::BUSY.into();
            return Err(IommuError::Unmap { range, source });
        }
        self.mapped.lock().retain(|(other, _)| *other != range);
        self.freed.notify_all();
        Ok(())
    }
}

/// An eventfd as a client has it.
pub(super) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// The parts of a BAR that can be mapped.
pub(super) fn area(offset: u64, size: u64) -> Area {
    Area { offset, size }
}
