//! What a client asks for, and why it is refused: SET_IRQS and GET_IRQ_INFO without their wire format.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// `VFIO_IRQ_INFO_EVENTFD`: signalled by eventfd.
pub(super) const INFO_EVENTFD: u32 = 1 << 0;
/// `VFIO_IRQ_INFO_MASKABLE`: MASK and UNMASK work.
pub(super) const INFO_MASKABLE: u32 = 1 << 1;
/// `VFIO_IRQ_INFO_AUTOMASKED`: masked by being signalled.
pub(super) const INFO_AUTOMASKED: u32 = 1 << 2;
/// `VFIO_IRQ_INFO_NORESIZE`: as many vectors as the first request names, until the index is disabled.
pub(crate) const INFO_NORESIZE: u32 = 1 << 3;

/// A kind of interrupt, `VFIO_PCI_*_IRQ_INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqIndex {
    /// The INTx pin.
    Intx,
    /// MSI vectors.
    Msi,
    /// MSI-X vectors.
    Msix,
    /// An uncorrectable error of the device.
    Err,
    /// The server wants the device back.
    Req,
}

impl IrqIndex {
    /// The index with the number that the wire has for it.
    pub fn from_wire(index: u32) -> Option<Self> {
        match index {
            0 => Some(Self::Intx),
            1 => Some(Self::Msi),
            2 => Some(Self::Msix),
            3 => Some(Self::Err),
            4 => Some(Self::Req),
            _ => None,
        }
    }
}

/// The answer to GET_IRQ_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqInfo {
    /// `VFIO_IRQ_INFO_*`.
    pub flags: u32,
    /// How many interrupts the index has.
    pub count: u32,
}

/// A SET_IRQS request.
#[derive(Debug)]
pub struct SetIrqs {
    /// Which kind of interrupt, as on the wire.
    pub index: u32,
    /// The first interrupt of the kind.
    pub start: u32,
    /// How many; 0 with [`IrqData::None`] and [`IrqAction::Trigger`] disables the whole index.
    pub count: u32,
    /// What to do.
    pub action: IrqAction,
    /// With what.
    pub data: IrqData,
}

/// What SET_IRQS does to the interrupts in its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqAction {
    /// Withholds signals.
    Mask,
    /// Lets signals through again; with an eventfd, each time that it is signalled.
    Unmask,
    /// Signals at once, or says what is to be signalled.
    Trigger,
}

/// What a SET_IRQS request carries.
#[derive(Debug)]
pub enum IrqData {
    /// Nothing: the action is done to every interrupt of the range.
    None,
    /// One byte for each interrupt: the action is done where it is not zero.
    Bool(Vec<u8>),
    /// One eventfd for each interrupt, or none at all: the interrupts lose theirs.
    Eventfds(Vec<OwnedFd>),
}

/// Why SET_IRQS was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// There is no such kind of interrupt.
    #[error("interrupt index {0} does not exist")]
    NoSuchIndex(u32),
    /// The range is empty or the index does not have it.
    #[error("{index:?} has {available} interrupts, not {count} from {start}")]
    OutOfRange {
        /// The index.
        index: IrqIndex,
        /// First interrupt asked for.
        start: u32,
        /// How many were asked for.
        count: u32,
        /// How many there are.
        available: u32,
    },
    /// The data does not have one item for each interrupt.
    #[error("{items} items of data for {count} interrupts")]
    WrongLength {
        /// Items in the request.
        items: usize,
        /// Interrupts in the request.
        count: u32,
    },
    /// Only an enabled index can be masked, signalled or disabled.
    #[error("{0:?} is not enabled")]
    NotEnabled(IrqIndex),
    /// INTx, MSI and MSI-X exclude each other.
    #[error("{wanted:?} cannot be enabled while {enabled:?} is")]
    OtherEnabled {
        /// The index asked for.
        wanted: IrqIndex,
        /// The index to be disabled first.
        enabled: IrqIndex,
    },
    /// The index does not do this.
    #[error("{index:?} does not support {action:?} with this data")]
    Unsupported {
        /// The index.
        index: IrqIndex,
        /// The action.
        action: IrqAction,
    },
    /// A file descriptor is something else than an eventfd.
    #[error("file descriptor {position} of the request is not an eventfd")]
    NotEventfd {
        /// Its position in the request.
        position: usize,
    },
    /// The host has run out of threads or file descriptors.
    #[error("the host cannot set the interrupt up")]
    Host(#[from] std::io::Error),
}

impl IrqError {
    /// The errno for the reply: the kernel's for the same request.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Unsupported { .. } => Errno::NOTTY,
            Self::Host(error) => Errno::from_io_error(error).unwrap_or(Errno::NOMEM),
            _ => Errno::INVAL,
        }
    }
}
