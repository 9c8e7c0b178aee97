//! What is used of the kernel's header, compared with the header by a C compiler.

use std::fmt::Write;
use std::mem::offset_of;

use iommufd_bindings::iommufd as abi;

use super::*;
use crate::header_check::{compile, equal};

/// C that is an error unless a struct has this size and these fields where Rust has them.
macro_rules! layout {
    ($name:ident: $($field:ident),*) => {{
        let mut c = equal(concat!("sizeof(struct ", stringify!($name), ")"), size_of::<abi::$name>() as u64);
        $(
            let offset = concat!("offsetof(struct ", stringify!($name), ", ", stringify!($field), ")");
            c += &equal(offset, offset_of!(abi::$name, $field) as u64);
        )*
        c
    }};
}

fn expectations() -> String {
    let mut c = String::from("#include <stddef.h>\n#include <linux/iommufd.h>\n");
    c += &layout!(iommu_option: size, option_id, op, object_id, val64);
    c += &layout!(iommu_hwpt_set_dirty_tracking: size, flags, hwpt_id);
    c += &layout!(iommu_hwpt_get_dirty_bitmap: size, hwpt_id, flags, iova, length, page_size, data);
    c += &layout!(iommu_hw_info: size, dev_id, out_capabilities);
    c += &layout!(iommu_hwpt_alloc: size, flags, dev_id, pt_id, out_hwpt_id, data_type);
    c += &layout!(iommu_ioas_map_file: size, flags, ioas_id, fd, start, length, iova);
    c += &layout!(iommu_ioas_map: size, flags, ioas_id, user_va, length, iova);
    c += &layout!(iommu_ioas_unmap: size, ioas_id, iova, length);
    let requests = [
        ("IOMMU_OPTION", IOMMUFD_CMD_OPTION),
        (
            "IOMMU_HWPT_SET_DIRTY_TRACKING",
            IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING,
        ),
        ("IOMMU_HWPT_GET_DIRTY_BITMAP", IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP),
    ];
    for (name, command) in requests {
        c += &equal(name, request(command));
    }
    let values = [
        ("IOMMU_OPTION_OP_SET", 0),
        (
            "IOMMU_OPTION_HUGE_PAGES",
            abi::iommufd_option_IOMMU_OPTION_HUGE_PAGES,
        ),
        (
            "IOMMU_HW_CAP_DIRTY_TRACKING",
            abi::iommufd_hw_capabilities_IOMMU_HW_CAP_DIRTY_TRACKING,
        ),
        (
            "IOMMU_HW_INFO_TYPE_ARM_SMMUV3",
            abi::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
        ),
        (
            "IOMMU_HWPT_ALLOC_DIRTY_TRACKING",
            abi::iommufd_hwpt_alloc_flags_IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
        ),
        (
            "IOMMU_HWPT_DIRTY_TRACKING_ENABLE",
            abi::iommufd_hwpt_set_dirty_tracking_flags_IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
        ),
        (
            "IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR",
            abi::iommufd_hwpt_get_dirty_bitmap_flags_IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
        ),
    ];
    for (name, value) in values {
        let _ = write!(c, "{}", equal(name, value.into()));
    }
    c
}

#[test]
fn what_is_used_of_the_bindings_is_what_the_kernels_header_says() {
    let (is_valid, said) = compile(&expectations());
    assert!(is_valid, "{said}");
}

#[test]
fn the_comparison_catches_a_wrong_size_and_a_wrong_number() {
    for wrong in [
        equal("sizeof(struct iommu_hwpt_get_dirty_bitmap)", 40),
        equal("IOMMU_HWPT_GET_DIRTY_BITMAP", request(IOMMUFD_CMD_OPTION)),
    ] {
        assert!(!compile(&(expectations() + &wrong)).0, "{wrong} is taken");
    }
}
