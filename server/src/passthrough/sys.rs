//! [`Cdev`]: a device of the kernel that this process runs on, and the ioctls of its character device.
//!
//! Structures are those of `include/uapi/linux/vfio.h`: the wire's where vfio-user has taken them over; the tests compare them with
//! `vfio-bindings`.
#![allow(unsafe_code)] // System calls that are given pointers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::raw::c_ulong;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iommufd_ioctls::{AttachHwpt, IommuFd};
use pagetrail_tracker::{DmaLog, IovaRange, PageSize};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, retry_on_intr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::kernel::{Area, Device, DeviceInfo, IrqData, MigrationFile, Region, SetIrqs};
use crate::irq::{IrqAction, IrqInfo};
use crate::migration::PrecopyInfo;
use crate::wire::feature::{
    Feature, FeatureOps, LoggingRange, Migration, MigrationDataSize, MigrationState, NO_DATA_FD, number,
};
use crate::wire::irq::{IrqInfo as IrqInfoLayout, IrqSet, SetFlags};
use crate::wire::region::{
    DeviceFlags, DeviceInfo as DeviceInfoLayout, RegionFlags, RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap,
};
use crate::wire::{bytes, migration};

/// An ioctl whose argument is a structure that says in its first field how long it is, argument and answer.
#[derive(Clone, Copy)]
struct Request(u32);

impl Request {
    const DEVICE_GET_INFO: Self = Self(7);
    const DEVICE_GET_REGION_INFO: Self = Self(8);
    const DEVICE_GET_IRQ_INFO: Self = Self(9);
    const DEVICE_SET_IRQS: Self = Self(10);
    const DEVICE_RESET: Self = Self(11);
    const DEVICE_FEATURE: Self = Self(17);
    const DEVICE_BIND_IOMMUFD: Self = Self(18);
    const DEVICE_ATTACH_IOMMUFD_PT: Self = Self(19);
    const DEVICE_DETACH_IOMMUFD_PT: Self = Self(20);
    const MIG_GET_PRECOPY_INFO: Self = Self(21);

    /// `_IO(VFIO_TYPE, VFIO_BASE + n)`.
    const fn number(self) -> c_ulong {
        const VFIO_TYPE: u32 = b';' as u32;
        const VFIO_BASE: u32 = 100;
        (VFIO_TYPE << 8 | (VFIO_BASE + self.0)) as c_ulong
    }
}

/// The most that region information with all its capabilities takes, in bytes.
const REGION_INFO_MAX: u32 = 64 << 10;

/// `struct vfio_device_bind_iommufd` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Bind {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
}

/// `struct vfio_device_attach_iommufd_pt` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Attach {
    argsz: u32,
    flags: u32,
    pt_id: u32,
}

/// `struct vfio_device_detach_iommufd_pt` as it was at first.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Detach {
    argsz: u32,
    flags: u32,
}

/// `struct vfio_device_feature_dma_logging_control`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LoggingControl {
    page_size: u64,
    num_ranges: u32,
    reserved: u32,
    /// Address of [`LoggingRange`]s.
    ranges: u64,
}

/// `struct vfio_device_feature_dma_logging_report`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LoggingReport {
    iova: u64,
    length: u64,
    page_size: u64,
    /// Address of the words of the bitmap.
    bitmap: u64,
}

/// A device's character device, bound to an iommufd until it is closed.
#[derive(Debug)]
pub(super) struct Cdev {
    file: File,
    iommufd_id: u32,
}

impl Cdev {
    /// Binds the device behind `file` to `iommufd`. Nobody else can use it from then on.
    pub(super) fn bind(file: File, iommufd: &IommuFd) -> io::Result<Self> {
        let mut argument = bytes(&Bind {
            argsz: size_of::<Bind>() as u32,
            flags: 0,
            iommufd: iommufd.as_raw_fd(),
            out_devid: 0,
        });
        call(&file, Request::DEVICE_BIND_IOMMUFD, &mut argument)?;
        let bound: Bind = answer(&argument)?;
        Ok(Self {
            file,
            iommufd_id: bound.out_devid,
        })
    }

    /// What the iommufd calls the device.
    pub(super) fn iommufd_id(&self) -> u32 {
        self.iommufd_id
    }

    /// Gets a feature whose data is a `T` without pointers.
    fn get<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy>(&self, feature: u32) -> io::Result<T> {
        let mut argument = feature_argument(feature, FeatureOps::GET, &vec![0; size_of::<T>()]);
        call(&self.file, Request::DEVICE_FEATURE, &mut argument)?;
        answer(&argument[size_of::<Feature>()..])
    }
}

impl AsFd for Cdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AttachHwpt for Cdev {
    fn attach_hwpt(&self, pt_id: u32) -> io::Result<()> {
        let mut argument = bytes(&Attach {
            argsz: size_of::<Attach>() as u32,
            flags: 0,
            pt_id,
        });
        call(&self.file, Request::DEVICE_ATTACH_IOMMUFD_PT, &mut argument)
    }

    fn detach_hwpt(&self) -> io::Result<()> {
        let mut argument = bytes(&Detach {
            argsz: size_of::<Detach>() as u32,
            flags: 0,
        });
        call(&self.file, Request::DEVICE_DETACH_IOMMUFD_PT, &mut argument)
    }
}

impl Device for Cdev {
    fn info(&self) -> io::Result<DeviceInfo> {
        let mut argument = bytes(&DeviceInfoLayout {
            argsz: size_of::<DeviceInfoLayout>() as u32,
            flags: 0,
            num_regions: 0,
            num_irqs: 0,
        });
        call(&self.file, Request::DEVICE_GET_INFO, &mut argument)?;
        let info: DeviceInfoLayout = answer(&argument)?;
        Ok(DeviceInfo {
            flags: DeviceFlags::from_bits_truncate(info.flags),
            regions: info.num_regions,
            irqs: info.num_irqs,
        })
    }

    fn region(&self, index: u32) -> io::Result<Region> {
        let ask = |argsz: u32| {
            let mut argument = bytes(&RegionInfo {
                argsz,
                flags: 0,
                index,
                cap_offset: 0,
                size: 0,
                offset: 0,
            });
            argument.resize(argsz as usize, 0);
            call(&self.file, Request::DEVICE_GET_REGION_INFO, &mut argument)?;
            Ok::<_, io::Error>((answer::<RegionInfo>(&argument)?, argument))
        };
        let (mut info, mut argument) = ask(size_of::<RegionInfo>() as u32)?;
        if info.argsz as usize > argument.len() && info.argsz <= REGION_INFO_MAX {
            (info, argument) = ask(info.argsz)?;
        }
        Ok(Region {
            flags: RegionFlags::from_bits_truncate(info.flags) - RegionFlags::CAPS,
            size: info.size,
            offset: info.offset,
            areas: sparse_areas(&argument, info.cap_offset),
        })
    }

    fn irq(&self, index: u32) -> io::Result<IrqInfo> {
        let mut argument = bytes(&IrqInfoLayout {
            argsz: size_of::<IrqInfoLayout>() as u32,
            flags: 0,
            index,
            count: 0,
        });
        call(&self.file, Request::DEVICE_GET_IRQ_INFO, &mut argument)?;
        let info: IrqInfoLayout = answer(&argument)?;
        Ok(IrqInfo {
            flags: info.flags,
            count: info.count,
        })
    }

    fn set_irqs(&self, request: &SetIrqs<'_>) -> io::Result<()> {
        let (flag, data) = match request.data {
            IrqData::None => (SetFlags::DATA_NONE, Vec::new()),
            IrqData::Bool(flags) => (SetFlags::DATA_BOOL, flags.to_vec()),
            IrqData::Eventfds(fds) => (SetFlags::DATA_EVENTFD, eventfds(fds, request.count)),
        };
        let action = match request.action {
            IrqAction::Mask => SetFlags::ACTION_MASK,
            IrqAction::Unmask => SetFlags::ACTION_UNMASK,
            IrqAction::Trigger => SetFlags::ACTION_TRIGGER,
        };
        let mut argument = bytes(&IrqSet {
            argsz: (size_of::<IrqSet>() + data.len()) as u32,
            flags: (flag | action).bits(),
            index: request.index,
            start: request.start,
            count: request.count,
        });
        argument.extend(data);
        call(&self.file, Request::DEVICE_SET_IRQS, &mut argument)
    }

    fn reset(&self) -> io::Result<()> {
        // It takes no argument; what it is given is not looked at.
        call(&self.file, Request::DEVICE_RESET, &mut 4_u32.to_ne_bytes())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(data, offset)
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn migration_flags(&self) -> io::Result<u64> {
        Ok(self.get::<Migration>(number::MIGRATION)?.flags)
    }

    fn migration_state(&self) -> io::Result<u32> {
        Ok(self.get::<MigrationState>(number::MIG_DEVICE_STATE)?.device_state)
    }

    fn set_migration_state(&self, state: u32) -> io::Result<Option<Box<dyn MigrationFile>>> {
        let asked = MigrationState {
            device_state: state,
            data_fd: NO_DATA_FD,
        };
        let mut argument = feature_argument(number::MIG_DEVICE_STATE, FeatureOps::SET, asked.as_bytes());
        call(&self.file, Request::DEVICE_FEATURE, &mut argument)?;
        let reached: MigrationState = answer(&argument[size_of::<Feature>()..])?;
        let fd = reached.data_fd.cast_signed();
        if fd < 0 {
            return Ok(None);
        }
        // SAFETY: the kernel has just made the descriptor for this process, and nobody else knows of it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Some(Box::new(DataFile::new(file, PATIENCE))))
    }

    fn migration_data_size(&self) -> io::Result<u64> {
        Ok(self
            .get::<MigrationDataSize>(number::MIG_DATA_SIZE)?
            .stop_copy_length)
    }
}

/// A device's log of its DMA.
#[derive(Debug)]
pub(super) struct Log(pub(super) Arc<Cdev>);

impl DmaLog for Log {
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> io::Result<PageSize> {
        let ranges: Vec<LoggingRange> = ranges
            .iter()
            .map(|range| LoggingRange {
                iova: range.start().get(),
                length: range.len(),
            })
            .collect();
        let control = LoggingControl {
            page_size: page_size.bytes(),
            num_ranges: ranges.len() as u32,
            reserved: 0,
            ranges: ranges.as_ptr() as u64,
        };
        let mut argument = feature_argument(number::DMA_LOGGING_START, FeatureOps::SET, control.as_bytes());
        // The kernel reads `num_ranges` ranges at `ranges`, which live until it has returned.
        call(&self.0.file, Request::DEVICE_FEATURE, &mut argument)?;
        let taken: LoggingControl = answer(&argument[size_of::<Feature>()..])?;
        if let Some(taken) = PageSize::new(taken.page_size) {
            return Ok(taken);
        }
        self.stop()?;
        Err(io::Error::other(format!(
            "the device tracks in pages of {} bytes",
            taken.page_size
        )))
    }

    fn stop(&self) -> io::Result<()> {
        let mut argument = feature_argument(number::DMA_LOGGING_STOP, FeatureOps::SET, &[]);
        call(&self.0.file, Request::DEVICE_FEATURE, &mut argument)
    }

    fn report(&self, range: IovaRange, page_size: PageSize, words: &mut [u64]) -> io::Result<()> {
        let pages = range.len().div_ceil(page_size.bytes());
        if (words.len() as u64) < pages.div_ceil(64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let report = LoggingReport {
            iova: range.start().get(),
            length: range.len(),
            page_size: page_size.bytes(),
            bitmap: words.as_mut_ptr() as u64,
        };
        let mut argument = feature_argument(number::DMA_LOGGING_REPORT, FeatureOps::GET, report.as_bytes());
        // The kernel sets bits of the words that hold one for each page of the range: `words` has as many.
        call(&self.0.file, Request::DEVICE_FEATURE, &mut argument)
    }
}

/// How long a driver's data is waited for. Shorter than the 5 s after which QEMU gives a message up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The file of a migrating device's data.
#[derive(Debug)]
struct DataFile {
    file: File,
    patience: Duration,
}

impl DataFile {
    fn new(file: OwnedFd, patience: Duration) -> Self {
        // A driver may wait for its device for as long as that takes. One that does not know of this does not wait at all.
        if let Err(error) = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK))
        {
            tracing::warn!(%error, "migration data may be waited for without a limit");
        }
        let file = file.into();
        Self { file, patience }
    }

    /// Repeats what would block until the file is ready for it, but not for ever.
    fn patiently<T>(
        &self,
        ready: PollFlags,
        mut attempt: impl FnMut(&File) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            match retry_on_intr(|| attempt(&self.file)) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut file = [PollFd::new(&self.file, ready)];
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            if retry_on_intr(|| poll(&mut file, Some(&left)))? == 0 {
                return Err(Errno::AGAIN.into());
            }
        }
    }
}

impl MigrationFile for DataFile {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |file| rustix::io::read(file, &mut *out))
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |file| rustix::io::write(file, data))
    }

    fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        let mut argument = bytes(&migration::PrecopyInfo {
            argsz: size_of::<migration::PrecopyInfo>() as u32,
            flags: 0,
            initial_bytes: 0,
            dirty_bytes: 0,
        });
        call(&self.file, Request::MIG_GET_PRECOPY_INFO, &mut argument)?;
        let info: migration::PrecopyInfo = answer(&argument)?;
        Ok(PrecopyInfo {
            initial_bytes: info.initial_bytes,
            dirty_bytes: info.dirty_bytes,
        })
    }
}

/// Makes the system call. What an argument points at is to outlive it.
fn call(file: &File, request: Request, argument: &mut [u8]) -> io::Result<()> {
    let argsz = u32::read_from_prefix(argument).map_or(usize::MAX, |(argsz, _)| argsz as usize);
    if argsz > argument.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: each `Request` takes a structure that begins with its length, of which the kernel reads and writes no more than that
    // length: `argument` is as long, as was just checked, and borrowed for the call. Where it holds addresses, its maker has said
    // what is there.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request.number(), argument.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The structure at the front of an argument.
fn answer<T: FromBytes + KnownLayout + Immutable + Copy>(argument: &[u8]) -> io::Result<T> {
    let parsed = T::read_from_prefix(argument);
    parsed
        .map(|(value, _)| value)
        .map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

/// `struct vfio_device_feature` with its data.
fn feature_argument(feature: u32, operation: FeatureOps, data: &[u8]) -> Vec<u8> {
    let mut argument = bytes(&Feature {
        argsz: (size_of::<Feature>() + data.len()) as u32,
        flags: feature | operation.bits(),
    });
    argument.extend(data);
    argument
}

/// The array of `count` descriptors, or of as many that are none.
fn eventfds(fds: &[OwnedFd], count: u32) -> Vec<u8> {
    if fds.is_empty() {
        return vec![0xff; count as usize * size_of::<i32>()];
    }
    fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes()).collect()
}

/// The areas that the capability of region information names, if it has one.
fn sparse_areas(argument: &[u8], first: u32) -> Option<Vec<Area>> {
    let mut at = first as usize;
    // The kernel's list is short; a longer one would be a loop.
    for _ in 0..16 {
        if at == 0 {
            return None;
        }
        let (header, rest) = SparseMmap::read_from_prefix(argument.get(at..)?).ok()?;
        if header.id == SPARSE_MMAP {
            let areas = rest.chunks_exact(size_of::<SparseArea>());
            let areas = areas.take(header.nr_areas as usize);
            return Some(
                areas
                    .filter_map(|area| SparseArea::read_from_bytes(area).ok())
                    .map(|area| Area {
                        offset: area.offset,
                        size: area.size,
                    })
                    .collect(),
            );
        }
        at = header.next as usize;
    }
    None
}

#[cfg(test)]
mod tests;
