//! [`Cdev`]: a device's character device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use iommufd_ioctls::{AttachHwpt, IommuFd};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::data_file::DataFile;
use super::ioctl::{self, Request, answer, call, feature_argument};
use super::layout::{Attach, Bind, Detach};
use crate::irq::{IrqAction, IrqInfo};
use crate::passthrough::kernel::{Area, Device, DeviceInfo, IrqData, MigrationFile, Region, SetIrqs};
use crate::wire::bytes;
use crate::wire::feature::{Feature, FeatureOps, Migration, MigrationDataSize, MigrationState, number};
use crate::wire::irq::{IrqInfo as IrqInfoLayout, IrqSet, SetFlags};
use crate::wire::region::{
    DeviceFlags, DeviceInfo as DeviceInfoLayout, RegionFlags, RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap,
};

/// The most that region information with all its capabilities takes, in bytes.
const REGION_INFO_MAX: u32 = 64 << 10;

/// A device's character device, bound to an iommufd until it is closed.
#[derive(Debug)]
pub(in crate::passthrough) struct Cdev {
    pub(super) file: File,
    iommufd_id: u32,
}

impl Cdev {
    /// Binds the device behind `file` to `iommufd`. Nobody else can use it from then on.
    pub(in crate::passthrough) fn bind(file: File, iommufd: &IommuFd) -> io::Result<Self> {
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
    pub(in crate::passthrough) fn iommufd_id(&self) -> u32 {
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
        call(&self.file, Request::DEVICE_ATTACH_IOMMUFD_PT, &mut argument).map(drop)
    }

    fn detach_hwpt(&self) -> io::Result<()> {
        let mut argument = bytes(&Detach {
            argsz: size_of::<Detach>() as u32,
            flags: 0,
        });
        call(&self.file, Request::DEVICE_DETACH_IOMMUFD_PT, &mut argument).map(drop)
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
            IrqData::Eventfds(fds) => (SetFlags::DATA_EVENTFD, eventfds(fds)),
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
        match call(&self.file, Request::DEVICE_SET_IRQS, &mut argument)? {
            0 => Ok(()),
            // So many there would be, and none is enabled.
            _ => Err(Errno::NOSPC.into()),
        }
    }

    fn reset(&self) -> io::Result<()> {
        // It takes no argument; what it is given is not looked at.
        call(&self.file, Request::DEVICE_RESET, &mut 4_u32.to_ne_bytes()).map(drop)
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
        let file = ioctl::set_migration_state(&self.file, state)?;
        Ok(file.map(|file| Box::new(DataFile::new(file)) as _))
    }

    fn migration_data_size(&self) -> io::Result<u64> {
        Ok(self
            .get::<MigrationDataSize>(number::MIG_DATA_SIZE)?
            .stop_copy_length)
    }
}

/// The areas that the capability of region information names, if it has one.
pub(super) fn sparse_areas(argument: &[u8], first: u32) -> Option<Vec<Area>> {
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

/// The array of descriptors, or of what stands for none.
fn eventfds(fds: &[Option<BorrowedFd<'_>>]) -> Vec<u8> {
    fds.iter()
        .flat_map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd()).to_ne_bytes())
        .collect()
}
