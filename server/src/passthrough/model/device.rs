//! [`FakeDevice`]: a device of VFIO's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use super::FakeData;
use crate::irq::{INFO_NORESIZE, IrqAction, IrqInfo};
use crate::passthrough::kernel::{Device, DeviceInfo, IrqData, MigrationFile, Region, SetIrqs};
use crate::wire::region::{CONFIG_REGION, DeviceFlags, RegionFlags};

/// Bytes of BAR 0, of which the second page has the MSI-X table.
pub(in crate::passthrough) const BAR_SIZE: u64 = 4 << 12;
/// The regions begin so far apart in the file, as the kernel has them.
pub(in crate::passthrough) const STRIDE: u64 = 1 << 40;

/// Where config space has Device Control, by whose highest bit the guest's driver resets the device.
pub(in crate::passthrough) const DEVICE_CONTROL: u64 = 0x48;

/// Vectors of MSI, which the kernel wants to be told of at once.
pub(in crate::passthrough) const MSI: u32 = 32;

/// A PCI device with one BAR, MSI, MSI-X and a migration.
pub(in crate::passthrough) struct FakeDevice {
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
pub(in crate::passthrough) struct State {
    pub(in crate::passthrough) flags: DeviceFlags,
    /// Contents of BAR 0 and of config space.
    regions: BTreeMap<u32, Vec<u8>>,
    /// The requests to set interrupts that were granted: index, first, count, action and how many eventfds.
    pub(in crate::passthrough) irqs: Vec<(u32, u32, u32, IrqAction, usize)>,
    /// The eventfds of MSI's vectors, as many as are enabled, and how many the host has for it.
    pub(in crate::passthrough) msi: Vec<Option<OwnedFd>>,
    pub(in crate::passthrough) msi_available: u32,
    /// What was given for the host's request.
    pub(in crate::passthrough) request: Option<OwnedFd>,
    pub(in crate::passthrough) resets: usize,
    /// What the command register had at the last reset.
    pub(in crate::passthrough) command_at_reset: Option<u16>,
    /// `None` if it does not migrate.
    pub(in crate::passthrough) migration: Option<u64>,
    pub(in crate::passthrough) reached: u32,
    /// What can be read before it has stopped, and afterwards.
    pub(in crate::passthrough) early: Vec<u8>,
    pub(in crate::passthrough) late: Vec<u8>,
    /// What was loaded.
    pub(in crate::passthrough) loaded: Arc<Mutex<Vec<u8>>>,
    /// The next change of the migration state fails, and leads here.
    pub(in crate::passthrough) next_failure: Option<u32>,
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
    pub(in crate::passthrough) fn new() -> Arc<Self> {
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
    pub(in crate::passthrough) fn unplug(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(Errno::NODEV.into());
        }
        Ok(())
    }

    /// Has `event` happen whenever the driver is asked for another migration state.
    pub(in crate::passthrough) fn at_change(&self, event: impl FnMut() + Send + 'static) {
        *self.at_change.lock() = Some(Box::new(event));
    }

    pub(in crate::passthrough) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// The host wants the device back.
    pub(in crate::passthrough) fn request_back(&self) {
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
