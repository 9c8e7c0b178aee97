//! A device of VFIO's and the kernel's address space in memory, for tests: what they check, and what they remember.

mod device;
mod migration;
mod space;

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::kernel::Area;

pub(super) use device::{BAR_SIZE, DEVICE_CONTROL, FakeDevice, MSI, STRIDE, State};
pub(super) use migration::{FakeData, FakePlace};
pub(super) use space::FakeSpace;

/// An eventfd as a client has it.
pub(super) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// The parts of a BAR that can be mapped.
pub(super) fn area(offset: u64, size: u64) -> Area {
    Area { offset, size }
}
