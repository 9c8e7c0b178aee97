//! `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`, into a bitmap that is there already.
//!
//! The structs are those of `<linux/vfio.h>`, with which the tests compare them.
#![allow(unsafe_code)] // A system call that is given pointers.

use std::io;
use std::os::fd::AsRawFd;
use std::os::raw::c_ulong;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use crate::{IovaRange, PageSize};

/// `VFIO_DEVICE_FEATURE`: `_IO(VFIO_TYPE, VFIO_BASE + 17)`.
const DEVICE_FEATURE: c_ulong = (b';' as c_ulong) << 8 | (100 + 17);
/// `VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`.
const GET_REPORT: u32 = 1 << 16 | 8;

/// `struct vfio_device_feature`, and as its data `struct vfio_device_feature_dma_logging_report`.
#[repr(C)]
struct Report {
    argsz: u32,
    flags: u32,
    iova: u64,
    length: u64,
    page_size: u64,
    bitmap: u64,
}

/// Reads and clears what a device of VFIO's has logged of `range`: sets in `words` a bit for each page of `page_size`, the first one being
/// bit 0. Words may have bits set already.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if there are fewer words than that takes, or what the kernel said: the log is lost then.
pub fn report_dma_logging(
    device: &impl AsRawFd,
    range: IovaRange,
    page_size: PageSize,
    words: &mut [u64],
) -> io::Result<()> {
    let bits = range.len().div_ceil(page_size.bytes());
    if (words.len() as u64) < bits.div_ceil(64) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut report = Report {
        argsz: size_of::<Report>() as u32,
        flags: GET_REPORT,
        iova: range.start().get(),
        length: range.len(),
        page_size: page_size.bytes(),
        bitmap: words.as_mut_ptr() as u64,
    };
    // SAFETY: the request takes a `struct vfio_device_feature` with the data that its flags name, which `report` is and which
    // outlives the call. The kernel writes the words that hold a bit for each page of `range`: `words` has as many, as was just
    // checked, and is borrowed until the call returns.
    let result = unsafe { ioctl_with_mut_ref(device, DEVICE_FEATURE, &mut report) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::header_check::{compile, equal};

    fn expectations() -> String {
        let mut c = String::from("#include <stddef.h>\n#include <linux/vfio.h>\n");
        let header = size_of::<u64>();
        c += &equal("sizeof(struct vfio_device_feature)", header as u64);
        c += &equal(
            "offsetof(struct vfio_device_feature, flags)",
            offset_of!(Report, flags) as u64,
        );
        let report = "struct vfio_device_feature_dma_logging_report";
        c += &equal(
            &format!("sizeof({report})"),
            (size_of::<Report>() - header) as u64,
        );
        for (field, offset) in [
            ("iova", offset_of!(Report, iova)),
            ("length", offset_of!(Report, length)),
            ("page_size", offset_of!(Report, page_size)),
            ("bitmap", offset_of!(Report, bitmap)),
        ] {
            c += &equal(&format!("offsetof({report}, {field})"), (offset - header) as u64);
        }
        c += &equal("VFIO_DEVICE_FEATURE", DEVICE_FEATURE);
        c += &equal(
            "(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT)",
            GET_REPORT.into(),
        );
        c
    }

    #[test]
    fn what_is_used_is_what_the_kernels_header_says() {
        let (is_valid, said) = compile(&expectations());
        assert!(is_valid, "{said}");
    }

    #[test]
    fn the_comparison_catches_a_wrong_number() {
        let wrong = equal("VFIO_DEVICE_FEATURE", DEVICE_FEATURE + 1);
        assert!(!compile(&(expectations() + &wrong)).0, "{wrong} is taken");
    }

    #[test]
    fn a_bitmap_that_is_too_short_never_reaches_the_kernel() {
        let device = std::fs::File::open("/dev/null").unwrap();
        let range = IovaRange::of(0, 65 * 4096 - 1);
        let error = report_dma_logging(&device, range, PageSize::SIZE_4K, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
