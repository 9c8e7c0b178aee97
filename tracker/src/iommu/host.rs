//! [`Iommufd`] of the kernel that this process runs on.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use iommufd_bindings::iommufd as abi;
use iommufd_ioctls::{IommuFd, IommufdError};
use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::kernel::{Access, After, DirtyControl, Hold, Iommufd, Leaves, Memory, ObjectId, Tracking};
use super::sys;
use crate::IovaRange;

/// `/dev/iommu`.
pub(super) struct Host(pub(super) Arc<IommuFd>);

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.0.as_raw_fd()).finish()
    }
}

impl Iommufd for Host {
    fn alloc_ioas(&self, leaves: Leaves) -> io::Result<ObjectId> {
        let mut command = abi::iommu_ioas_alloc {
            size: size_of::<abi::iommu_ioas_alloc>() as u32,
            ..Default::default()
        };
        self.0.alloc_iommu_ioas(&mut command).map_err(os_error)?;
        let ioas = ObjectId(command.out_ioas_id);
        if leaves == Leaves::Small {
            let no_huge_pages =
                sys::set_option(&self.0, abi::iommufd_option_IOMMU_OPTION_HUGE_PAGES, ioas.0, 0);
            no_huge_pages.inspect_err(|_| drop(self.destroy(ioas)))?;
        }
        Ok(ioas)
    }

    fn dirty_control(&self, device: ObjectId) -> io::Result<Option<DirtyControl>> {
        let mut command = abi::iommu_hw_info {
            size: size_of::<abi::iommu_hw_info>() as u32,
            dev_id: device.0,
            ..Default::default()
        };
        match self.0.get_hw_info(&mut command).map_err(os_error) {
            // A kernel without the call has no dirty tracking either.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTTY) => return Ok(None),
            answer => answer?,
        }
        let dirty_tracking = u64::from(abi::iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING);
        if command.out_capabilities & dirty_tracking == 0 {
            return Ok(None);
        }
        Ok(Some(match sys::hw_info_type(&command) {
            abi::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_ARM_SMMUV3 => DirtyControl::PerPte,
            // Not every driver says what it is; those that do not are switched.
            _ => DirtyControl::Global,
        }))
    }

    fn alloc_page_table(
        &self,
        device: ObjectId,
        ioas: ObjectId,
        control: Option<DirtyControl>,
    ) -> io::Result<ObjectId> {
        let mut command = abi::iommu_hwpt_alloc {
            size: size_of::<abi::iommu_hwpt_alloc>() as u32,
            flags: match control {
                Some(_) => abi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
                None => 0,
            },
            dev_id: device.0,
            pt_id: ioas.0,
            data_type: abi::iommu_hwpt_data_type_IOMMU_HWPT_DATA_NONE,
            ..Default::default()
        };
        self.0.alloc_iommu_hwpt(&mut command).map_err(os_error)?;
        Ok(ObjectId(command.out_hwpt_id))
    }

    fn destroy(&self, object: ObjectId) -> io::Result<()> {
        self.0.destroy_iommu_object(object.0).map_err(os_error)
    }

    fn map(&self, ioas: ObjectId, range: IovaRange, memory: Memory<'_>, access: Access) -> io::Result<Hold> {
        match self.map_file(ioas, range, memory, access) {
            Ok(()) => Ok(Hold::Nothing),
            // Linux before 6.13 cannot map files, and none can map files of every kind.
            Err(by_file) => match self.map_addresses(ioas, range, memory, access) {
                Ok(addresses) => Ok(Hold::Addresses(addresses)),
                Err(error) => {
                    tracing::debug!(%by_file, %error, %range, "not mapped");
                    Err(error)
                }
            },
        }
    }

    fn unmap(&self, ioas: ObjectId, range: IovaRange) -> io::Result<()> {
        let mut command = abi::iommu_ioas_unmap {
            size: size_of::<abi::iommu_ioas_unmap>() as u32,
            ioas_id: ioas.0,
            iova: range.start().get(),
            length: range.len(),
        };
        self.0.unmap_iommu_ioas(&mut command).map_err(os_error)
    }

    fn set_tracking(&self, page_table: ObjectId, tracking: Tracking) -> io::Result<()> {
        let flags = match tracking {
            Tracking::On => abi::iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
            Tracking::Off => 0,
        };
        sys::set_dirty_tracking(&self.0, page_table.0, flags)
    }

    fn read_dirty(
        &self,
        page_table: ObjectId,
        range: IovaRange,
        bitmap: &mut [u8],
        after: After,
    ) -> io::Result<()> {
        let flags = match after {
            After::Clear => 0,
            After::Keep => abi::iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
        };
        sys::get_dirty_bitmap(&self.0, page_table.0, flags, range, bitmap)
    }
}

impl Host {
    fn map_file(
        &self,
        ioas: ObjectId,
        range: IovaRange,
        memory: Memory<'_>,
        access: Access,
    ) -> io::Result<()> {
        let command = abi::iommu_ioas_map_file {
            size: size_of::<abi::iommu_ioas_map_file>() as u32,
            flags: map_flags(access),
            ioas_id: ioas.0,
            fd: memory.file.as_raw_fd(),
            start: memory.offset,
            length: range.len(),
            iova: range.start().get(),
        };
        self.0.map_iommu_ioas_file(&command).map_err(os_error)
    }

    /// Maps the file here, and then its addresses for devices.
    fn map_addresses(
        &self,
        ioas: ObjectId,
        range: IovaRange,
        memory: Memory<'_>,
        access: Access,
    ) -> io::Result<MmapRaw> {
        let addresses = map_here(memory.file, memory.offset, range.len(), access)?;
        let command = abi::iommu_ioas_map {
            size: size_of::<abi::iommu_ioas_map>() as u32,
            flags: map_flags(access),
            ioas_id: ioas.0,
            user_va: addresses.as_mut_ptr() as u64,
            length: range.len(),
            iova: range.start().get(),
            ..Default::default()
        };
        self.0.map_iommu_ioas(&command).map_err(os_error)?;
        Ok(addresses)
    }
}

/// Nothing in this process makes references to what is mapped, so that devices may write it.
fn map_here(file: &File, offset: u64, len: u64, access: Access) -> io::Result<MmapRaw> {
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut options = MmapOptions::new();
    options.offset(offset).len(len);
    match access {
        Access::Read => options.map_raw_read_only(file),
        Access::Write => options.map_raw(file),
    }
}

fn map_flags(access: Access) -> u32 {
    let read = abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
        | abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA;
    match access {
        Access::Read => read,
        Access::Write => read | abi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
    }
}

/// What the kernel said, without the crate's words around it.
fn os_error(error: IommufdError) -> io::Error {
    use std::error::Error;
    let errno = error
        .source()
        .and_then(|source| source.downcast_ref::<vmm_sys_util::errno::Error>());
    match errno {
        Some(errno) => io::Error::from_raw_os_error(errno.errno()),
        None => io::Error::other(error),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// An iommufd of a kernel that has none of its calls.
    fn old() -> Host {
        Host(Arc::new(IommuFd::new_from_fd(File::open("/dev/null").unwrap())))
    }

    #[test]
    fn a_kernel_that_cannot_say_what_an_iommu_can_do_has_no_dirty_bits() {
        assert_eq!(old().dirty_control(ObjectId(1)).unwrap(), None);
    }

    #[test]
    fn what_a_kernel_says_reaches_the_caller_with_its_number() {
        let host = old();
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(4096).unwrap();
        let memory = Memory {
            file: &memory,
            offset: 0,
        };
        let range = IovaRange::of(0, 4095);
        let mapped = host.map(ObjectId(1), range, memory, Access::Write).map(drop);
        let refusals = [
            host.alloc_ioas(Leaves::Small).map(drop),
            host.alloc_page_table(ObjectId(1), ObjectId(2), None).map(drop),
            host.unmap(ObjectId(1), range),
            host.set_tracking(ObjectId(1), Tracking::On),
            host.read_dirty(ObjectId(1), range, &mut [0; 8], After::Clear),
            mapped,
        ];
        for refusal in refusals {
            assert_eq!(
                refusal.map_err(|error| Errno::from_io_error(&error)),
                Err(Some(Errno::NOTTY))
            );
        }
    }
}
