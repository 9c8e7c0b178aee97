//! The system call that all of VFIO's requests are.
#![allow(unsafe_code)] // It is given pointers, and makes descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::raw::{c_int, c_ulong};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::bytes;
use crate::wire::feature::{Feature, FeatureOps, MigrationState, NO_DATA_FD, number};

/// An ioctl whose argument is a structure that says in its first field how long it is, argument and answer.
#[derive(Clone, Copy)]
pub(super) struct Request(u32);

impl Request {
    pub(super) const DEVICE_GET_INFO: Self = Self(7);
    pub(super) const DEVICE_GET_REGION_INFO: Self = Self(8);
    pub(super) const DEVICE_GET_IRQ_INFO: Self = Self(9);
    pub(super) const DEVICE_SET_IRQS: Self = Self(10);
    pub(super) const DEVICE_RESET: Self = Self(11);
    pub(super) const DEVICE_FEATURE: Self = Self(17);
    pub(super) const DEVICE_BIND_IOMMUFD: Self = Self(18);
    pub(super) const DEVICE_ATTACH_IOMMUFD_PT: Self = Self(19);
    pub(super) const DEVICE_DETACH_IOMMUFD_PT: Self = Self(20);
    pub(super) const MIG_GET_PRECOPY_INFO: Self = Self(21);

    /// `_IO(VFIO_TYPE, VFIO_BASE + n)`.
    pub(super) const fn number(self) -> c_ulong {
        const VFIO_TYPE: u32 = b';' as u32;
        const VFIO_BASE: u32 = 100;
        (VFIO_TYPE << 8 | (VFIO_BASE + self.0)) as c_ulong
    }
}

/// Makes the system call, and returns what it does. What an argument points at is to outlive it.
pub(super) fn call(file: &File, request: Request, argument: &mut [u8]) -> io::Result<c_int> {
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
    Ok(result)
}

/// The structure at the front of an argument.
pub(super) fn answer<T: FromBytes + KnownLayout + Immutable + Copy>(argument: &[u8]) -> io::Result<T> {
    let parsed = T::read_from_prefix(argument);
    parsed
        .map(|(value, _)| value)
        .map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

/// `struct vfio_device_feature` with its data.
pub(super) fn feature_argument(feature: u32, operation: FeatureOps, data: &[u8]) -> Vec<u8> {
    let mut argument = bytes(&Feature {
        argsz: (size_of::<Feature>() + data.len()) as u32,
        flags: feature | operation.bits(),
    });
    argument.extend(data);
    argument
}

/// Sets `MIG_DEVICE_STATE`. Returns the file with the data that the state has, if it is new.
pub(super) fn set_migration_state(device: &File, state: u32) -> io::Result<Option<OwnedFd>> {
    let asked = MigrationState {
        device_state: state,
        data_fd: NO_DATA_FD,
    };
    let mut argument = feature_argument(number::MIG_DEVICE_STATE, FeatureOps::SET, asked.as_bytes());
    call(device, Request::DEVICE_FEATURE, &mut argument)?;
    let reached: MigrationState = answer(&argument[size_of::<Feature>()..])?;
    let fd = reached.data_fd.cast_signed();
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just made the descriptor for this process, and nobody else knows of it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}
