//! Structures and numbers, compared with what bindgen has made of the kernel's header.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use vfio_bindings::bindings::vfio as abi;

use super::cdev::sparse_areas;
use super::data_file::DataFile;
use super::ioctl::{Request, call};
use super::layout::{Attach, Bind, Detach, LoggingControl};
use crate::irq::INFO_NORESIZE;
use crate::passthrough::kernel::{Area, MigrationFile};
use crate::wire::feature::{
    Feature, FeatureOps, LoggingRange, MIGRATION_FLAGS, Migration, MigrationDataSize, MigrationState, number,
};
use crate::wire::irq::{IrqInfo as IrqInfoLayout, IrqSet, SetFlags};
use crate::wire::region::{
    DeviceFlags, DeviceInfo as DeviceInfoLayout, RegionFlags, RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap,
};
use crate::wire::{bytes, migration};

/// Checks that fields are where the kernel has them.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty: $($field:ident = $name:ident),*) => {
        $(assert_eq!(
            offset_of!($ours, $field),
            offset_of!($theirs, $name),
            concat!(stringify!($theirs), ".", stringify!($name))
        );)*
    };
}

#[test]
fn structures_are_laid_out_as_the_kernels() {
    same_layout!(Bind, abi::vfio_device_bind_iommufd: argsz = argsz, flags = flags, iommufd = iommufd, out_devid = out_devid);
    same_layout!(Attach, abi::vfio_device_attach_iommufd_pt: argsz = argsz, flags = flags, pt_id = pt_id);
    same_layout!(Detach, abi::vfio_device_detach_iommufd_pt: argsz = argsz, flags = flags);
    same_layout!(DeviceInfoLayout, abi::vfio_device_info: argsz = argsz, flags = flags, num_regions = num_regions, num_irqs = num_irqs);
    same_layout!(RegionInfo, abi::vfio_region_info: argsz = argsz, flags = flags, index = index, cap_offset = cap_offset, size = size, offset = offset);
    same_layout!(SparseMmap, abi::vfio_region_info_cap_sparse_mmap: id = header, nr_areas = nr_areas, reserved = reserved);
    same_layout!(SparseArea, abi::vfio_region_sparse_mmap_area: offset = offset, size = size);
    same_layout!(IrqInfoLayout, abi::vfio_irq_info: argsz = argsz, flags = flags, index = index, count = count);
    same_layout!(IrqSet, abi::vfio_irq_set: argsz = argsz, flags = flags, index = index, start = start, count = count);
    same_layout!(Feature, abi::vfio_device_feature: argsz = argsz, flags = flags);
    same_layout!(MigrationState, abi::vfio_device_feature_mig_state: device_state = device_state, data_fd = data_fd);
    same_layout!(LoggingControl, abi::vfio_device_feature_dma_logging_control: page_size = page_size, num_ranges = num_ranges, reserved = __reserved, ranges = ranges);
    same_layout!(LoggingRange, abi::vfio_device_feature_dma_logging_range: iova = iova, length = length);
    same_layout!(migration::PrecopyInfo, abi::vfio_precopy_info: argsz = argsz, flags = flags, initial_bytes = initial_bytes, dirty_bytes = dirty_bytes);
}

#[test]
fn structures_without_a_tail_are_as_long_as_the_kernels() {
    let sizes = [
        (size_of::<RegionInfo>(), size_of::<abi::vfio_region_info>()),
        (
            size_of::<SparseMmap>(),
            size_of::<abi::vfio_region_info_cap_sparse_mmap>(),
        ),
        (
            size_of::<SparseArea>(),
            size_of::<abi::vfio_region_sparse_mmap_area>(),
        ),
        (size_of::<IrqInfoLayout>(), size_of::<abi::vfio_irq_info>()),
        (size_of::<IrqSet>(), size_of::<abi::vfio_irq_set>()),
        (size_of::<Feature>(), size_of::<abi::vfio_device_feature>()),
        (
            size_of::<Migration>(),
            size_of::<abi::vfio_device_feature_migration>(),
        ),
        (
            size_of::<MigrationState>(),
            size_of::<abi::vfio_device_feature_mig_state>(),
        ),
        (
            size_of::<MigrationDataSize>(),
            size_of::<abi::vfio_device_feature_mig_data_size>(),
        ),
        (
            size_of::<LoggingControl>(),
            size_of::<abi::vfio_device_feature_dma_logging_control>(),
        ),
        (
            size_of::<migration::PrecopyInfo>(),
            size_of::<abi::vfio_precopy_info>(),
        ),
    ];
    for (ours, theirs) in sizes {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn numbers_are_the_kernels() {
    let numbers = [
        (SetFlags::DATA_NONE.bits(), abi::VFIO_IRQ_SET_DATA_NONE),
        (SetFlags::DATA_BOOL.bits(), abi::VFIO_IRQ_SET_DATA_BOOL),
        (SetFlags::DATA_EVENTFD.bits(), abi::VFIO_IRQ_SET_DATA_EVENTFD),
        (SetFlags::ACTION_MASK.bits(), abi::VFIO_IRQ_SET_ACTION_MASK),
        (SetFlags::ACTION_UNMASK.bits(), abi::VFIO_IRQ_SET_ACTION_UNMASK),
        (SetFlags::ACTION_TRIGGER.bits(), abi::VFIO_IRQ_SET_ACTION_TRIGGER),
        (INFO_NORESIZE, abi::VFIO_IRQ_INFO_NORESIZE),
        (DeviceFlags::RESET.bits(), abi::VFIO_DEVICE_FLAGS_RESET),
        (DeviceFlags::PCI.bits(), abi::VFIO_DEVICE_FLAGS_PCI),
        (RegionFlags::MMAP.bits(), abi::VFIO_REGION_INFO_FLAG_MMAP),
        (RegionFlags::CAPS.bits(), abi::VFIO_REGION_INFO_FLAG_CAPS),
        (SPARSE_MMAP.into(), abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP),
        (FeatureOps::GET.bits(), abi::VFIO_DEVICE_FEATURE_GET),
        (FeatureOps::SET.bits(), abi::VFIO_DEVICE_FEATURE_SET),
        (number::MIGRATION, abi::VFIO_DEVICE_FEATURE_MIGRATION),
        (
            number::MIG_DEVICE_STATE,
            abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        ),
        (
            number::DMA_LOGGING_START,
            abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
        ),
        (
            number::DMA_LOGGING_STOP,
            abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
        ),
        (
            number::DMA_LOGGING_REPORT,
            abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
        ),
        (number::MIG_DATA_SIZE, abi::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE),
    ];
    for (ours, theirs) in numbers {
        assert_eq!(ours, theirs);
    }
    let flags = abi::VFIO_MIGRATION_STOP_COPY | abi::VFIO_MIGRATION_P2P | abi::VFIO_MIGRATION_PRE_COPY;
    assert_eq!(MIGRATION_FLAGS, u64::from(flags));
    // <linux/vfio.h>: _IO(VFIO_TYPE, VFIO_BASE + 7) and so on.
    assert_eq!(Request::DEVICE_GET_INFO.number(), 0x3b6b);
    assert_eq!(Request::DEVICE_RESET.number(), 0x3b6f);
    assert_eq!(Request::DEVICE_FEATURE.number(), 0x3b75);
    assert_eq!(Request::MIG_GET_PRECOPY_INFO.number(), 0x3b79);
}

#[test]
fn an_argument_that_claims_to_be_longer_than_it_is_never_reaches_the_kernel() {
    let file = File::open("/dev/null").unwrap();
    for mut argument in [vec![5, 0, 0, 0], vec![1], Vec::new()] {
        let error = call(&file, Request::DEVICE_GET_INFO, &mut argument).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    let error = call(&file, Request::DEVICE_GET_INFO, &mut [4, 0, 0, 0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
}

#[test]
fn the_kernels_areas_are_found_behind_other_capabilities() {
    let mut argument = bytes(&RegionInfo {
        argsz: 0,
        flags: 0,
        index: 0,
        cap_offset: 32,
        size: 0,
        offset: 0,
    });
    let cap = |id, next, nr_areas| SparseMmap {
        id,
        version: 1,
        next,
        nr_areas,
        reserved: 0,
    };
    argument.extend(bytes(&cap(2, 48, 0)));
    argument.extend(bytes(&cap(SPARSE_MMAP, 0, 1)));
    argument.extend(bytes(&SparseArea {
        offset: 0x1000,
        size: 0x2000,
    }));
    let area = Area {
        offset: 0x1000,
        size: 0x2000,
    };
    assert_eq!(sparse_areas(&argument, 32), Some(vec![area]));
    assert_eq!(sparse_areas(&argument, 0), None);
    let loops = [bytes(&cap(2, 0, 0)), bytes(&cap(2, 16, 0))].concat();
    assert_eq!(sparse_areas(&loops, 16), None);
    assert_eq!(sparse_areas(&argument, 4000), None);
}

#[test]
fn migration_data_that_does_not_come_is_not_waited_for_for_ever() {
    let (reader, writer) = io::pipe().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let again = reader.try_clone().unwrap();
        let file = DataFile::with_patience(reader.into(), Duration::from_millis(10));
        let mut out = [0; 8];
        done.send((file.read(&mut out).map_err(|error| error.kind()), out))
            .unwrap();
        let file = DataFile::with_patience(again.into(), Duration::from_mins(1));
        done.send((file.read(&mut out).map_err(|error| error.kind()), out))
            .unwrap();
    });
    let next = || ended.recv_timeout(Duration::from_secs(30)).expect("it ends");
    assert_eq!(next().0, Err(io::ErrorKind::WouldBlock));
    rustix::io::write(&writer, b"data").unwrap();
    assert_eq!(next(), (Ok(4), *b"data\0\0\0\0"));
}

#[test]
fn a_driver_that_does_not_take_data_is_not_waited_for_for_ever() {
    let (_reader, writer) = io::pipe().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let file = DataFile::with_patience(writer.into(), Duration::from_millis(10));
        while file.write(&[0; 4096]).is_ok() {}
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("it ends");
}

#[test]
fn a_driver_that_is_always_ready_and_never_has_anything_is_not_asked_for_ever() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let always_ready = File::open("/dev/zero").unwrap();
        let file = DataFile::with_patience(always_ready.into(), Duration::from_millis(10));
        let read = file.patiently(PollFlags::IN, |_| Err::<usize, _>(Errno::AGAIN));
        done.send(read.map_err(|error| error.kind())).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(30)).expect("it ends");
    assert_eq!(ended, Err(io::ErrorKind::WouldBlock));
}
