//! `VFIO_USER_DEVICE_GET_IRQ_INFO` and `VFIO_USER_DEVICE_SET_IRQS`.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct vfio_irq_info`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct IrqInfo {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) count: u32,
}

/// `struct vfio_irq_set` without its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, packed)]
pub(crate) struct IrqSet {
    pub(crate) argsz: u32,
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

bitflags! {
    /// [`IrqSet::flags`]: one kind of data, one action.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SetFlags: u32 {
        const DATA_NONE = 1 << 0;
        const DATA_BOOL = 1 << 1;
        const DATA_EVENTFD = 1 << 2;
        const ACTION_MASK = 1 << 3;
        const ACTION_UNMASK = 1 << 4;
        const ACTION_TRIGGER = 1 << 5;

        const DATA = Self::DATA_NONE.bits() | Self::DATA_BOOL.bits() | Self::DATA_EVENTFD.bits();
        const ACTION = Self::ACTION_MASK.bits() | Self::ACTION_UNMASK.bits() | Self::ACTION_TRIGGER.bits();
    }
}
