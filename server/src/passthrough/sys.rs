//! The kernel that this process runs on: ioctls of VFIO's character devices.
//!
//! | module | what it is |
//! |---|---|
//! | `cdev` | a device |
//! | `log` | its log of its DMA |
//! | `data_file` | the file of its migration data |
//! | `layout`, `ioctl` | what the kernel is given, and the one call that gives it |
//!
//! Structures are those of `include/uapi/linux/vfio.h`: the wire's where vfio-user has taken them over; the tests compare them with
//! `vfio-bindings`. Only `log` puts addresses into them, of memory that it has borrowed until the call returns.

mod cdev;
mod data_file;
mod ioctl;
mod layout;
mod log;

pub(super) use cdev::Cdev;
pub(super) use log::Log;

#[cfg(test)]
mod tests;
