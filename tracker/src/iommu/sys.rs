//! The ioctls of iommufd that `iommufd-ioctls` lacks.
//!
//! The structs and their sizes are those of `iommufd-bindings`, which bindgen has made of `<linux/iommufd.h>`;
//! the tests compare what is used with a header of the kernel.
#![allow(unsafe_code)] // System calls that are given pointers.

use std::io;
use std::os::raw::c_ulong;

use iommufd_bindings::iommufd::{
    IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP, IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING, IOMMUFD_CMD_OPTION, IOMMUFD_TYPE,
    iommu_hw_info, iommu_hw_info_type, iommu_hwpt_get_dirty_bitmap, iommu_hwpt_set_dirty_tracking,
    iommu_option,
};
use iommufd_ioctls::IommuFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};

use crate::IovaRange;
use crate::granules::GRANULE;

/// The number of the ioctl `command`: `_IO(IOMMUFD_TYPE, command)`.
const fn request(command: u32) -> c_ulong {
    ((IOMMUFD_TYPE as u32) << 8 | command) as c_ulong
}

/// `IOMMU_OPTION`.
pub(super) fn set_option(iommufd: &IommuFd, option: u32, object: u32, value: u64) -> io::Result<()> {
    let mut command = iommu_option {
        size: size_of::<iommu_option>() as u32,
        option_id: option,
        // IOMMU_OPTION_OP_SET
        op: 0,
        object_id: object,
        val64: value,
        ..Default::default()
    };
    // SAFETY: the request takes a `struct iommu_option`, which `command` is and which outlives the call.
    check(unsafe { ioctl_with_mut_ref(iommufd, request(IOMMUFD_CMD_OPTION), &mut command) })
}

/// `IOMMU_HWPT_SET_DIRTY_TRACKING`.
pub(super) fn set_dirty_tracking(iommufd: &IommuFd, page_table: u32, flags: u32) -> io::Result<()> {
    let command = iommu_hwpt_set_dirty_tracking {
        size: size_of::<iommu_hwpt_set_dirty_tracking>() as u32,
        flags,
        hwpt_id: page_table,
        __reserved: 0,
    };
    // SAFETY: the request takes a `struct iommu_hwpt_set_dirty_tracking`, which `command` is and which outlives
    // the call.
    check(unsafe { ioctl_with_ref(iommufd, request(IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING), &command) })
}

/// `IOMMU_HWPT_GET_DIRTY_BITMAP`, with a bit for each granule of `range`.
pub(super) fn get_dirty_bitmap(
    iommufd: &IommuFd,
    page_table: u32,
    flags: u32,
    range: IovaRange,
    bitmap: &mut [u8],
) -> io::Result<()> {
    let bits = range.len().div_ceil(GRANULE.bytes());
    if (bitmap.len() as u64) < bits.div_ceil(64) * 8 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let command = iommu_hwpt_get_dirty_bitmap {
        size: size_of::<iommu_hwpt_get_dirty_bitmap>() as u32,
        hwpt_id: page_table,
        flags,
        __reserved: 0,
        iova: range.start().get(),
        length: range.len(),
        page_size: GRANULE.bytes(),
        data: bitmap.as_mut_ptr() as u64,
    };
    // SAFETY: the request takes a `struct iommu_hwpt_get_dirty_bitmap`, which `command` is and which outlives the
    // call. The kernel writes the words that hold a bit for each granule of `range`: `bitmap` has as many, as was
    // just checked, and is borrowed until the call returns.
    check(unsafe { ioctl_with_ref(iommufd, request(IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP), &command) })
}

/// The kind of IOMMU that `IOMMU_GET_HW_INFO` answered with.
pub(super) fn hw_info_type(info: &iommu_hw_info) -> iommu_hw_info_type {
    // SAFETY: both fields of the union are a `__u32` in the same place, and every value of it is valid.
    unsafe { info.__bindgen_anon_1.out_data_type }
}

/// What a system call returned.
fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests;
