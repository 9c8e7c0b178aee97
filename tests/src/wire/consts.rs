//! Constants of the vfio-user protocol and of `linux/vfio.h`, under the names they have there.

/// Bytes of a message header.
pub const HEADER_SIZE: usize = 16;

/// Header flags: mask of the message type.
pub const FLAG_TYPE_MASK: u32 = 0xf;
/// Header flags: the message is a command.
pub const FLAG_TYPE_COMMAND: u32 = 0x0;
/// Header flags: the message is a reply.
pub const FLAG_TYPE_REPLY: u32 = 0x1;
/// Header flags: the sender of the command wants no reply.
pub const FLAG_NO_REPLY: u32 = 0x10;
/// Header flags: the reply carries an error.
pub const FLAG_ERROR: u32 = 0x20;

/// Version of the protocol spoken here.
pub const VERSION_MAJOR: u16 = 0;
/// Version of the protocol spoken here.
pub const VERSION_MINOR: u16 = 1;

/// `max_msg_fds` of a peer that names none.
pub const DEFAULT_MAX_MSG_FDS: u32 = 1;
/// `max_data_xfer_size` of a peer that names none, in bytes.
pub const DEFAULT_MAX_DATA_XFER_SIZE: u64 = 1 << 20;
/// `max_dma_maps` of a peer that names none.
pub const DEFAULT_MAX_DMA_MAPS: u64 = 65535;

/// Most file descriptors that Linux passes in one message (`SCM_MAX_FD`).
pub const SCM_MAX_FD: usize = 253;

/// `DEVICE_GET_INFO`: `VFIO_USER_DEVICE_RESET` is supported.
pub const DEVICE_FLAGS_RESET: u32 = 1 << 0;
/// `DEVICE_GET_INFO`: a PCI device.
pub const DEVICE_FLAGS_PCI: u32 = 1 << 1;

/// `DMA_MAP`: the device may read.
pub const DMA_MAP_READ: u32 = 1 << 0;
/// `DMA_MAP`: the device may write.
pub const DMA_MAP_WRITE: u32 = 1 << 1;
/// `DMA_MAP`: the server maps the file descriptor.
pub const DMA_MAP_MODE_MMAP: u32 = 1 << 2;
/// `DMA_MAP`: the server uses file I/O.
pub const DMA_MAP_MODE_FILE_IO: u32 = 1 << 3;

/// `DMA_UNMAP`: the reply carries the dirty bitmap.
pub const DMA_UNMAP_GET_DIRTY_BITMAP: u32 = 1 << 0;
/// `DMA_UNMAP`: every mapping.
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// Region indexes of a PCI device: BAR 0.
pub const REGION_BAR0: u32 = 0;
/// Region indexes of a PCI device: BAR 5.
pub const REGION_BAR5: u32 = 5;
/// Region indexes of a PCI device: the expansion ROM.
pub const REGION_ROM: u32 = 6;
/// Region indexes of a PCI device: configuration space.
pub const REGION_CONFIG: u32 = 7;
/// Region indexes of a PCI device: legacy VGA.
pub const REGION_VGA: u32 = 8;

/// `DEVICE_GET_REGION_INFO`: readable.
pub const REGION_FLAG_READ: u32 = 1 << 0;
/// `DEVICE_GET_REGION_INFO`: writable.
pub const REGION_FLAG_WRITE: u32 = 1 << 1;
/// `DEVICE_GET_REGION_INFO`: can be mapped.
pub const REGION_FLAG_MMAP: u32 = 1 << 2;
/// `DEVICE_GET_REGION_INFO`: a capability chain follows.
pub const REGION_FLAG_CAPS: u32 = 1 << 3;
/// Capability of a region: the areas that can be mapped.
pub const REGION_CAP_SPARSE_MMAP: u16 = 1;

/// Interrupt indexes of a PCI device: INTx.
pub const IRQ_INTX: u32 = 0;
/// Interrupt indexes of a PCI device: MSI.
pub const IRQ_MSI: u32 = 1;
/// Interrupt indexes of a PCI device: MSI-X.
pub const IRQ_MSIX: u32 = 2;
/// Interrupt indexes of a PCI device: error.
pub const IRQ_ERR: u32 = 3;
/// Interrupt indexes of a PCI device: request for release.
pub const IRQ_REQ: u32 = 4;

/// `DEVICE_GET_IRQ_INFO`: signalled by eventfd.
pub const IRQ_INFO_EVENTFD: u32 = 1 << 0;
/// `DEVICE_GET_IRQ_INFO`: can be masked.
pub const IRQ_INFO_MASKABLE: u32 = 1 << 1;
/// `DEVICE_GET_IRQ_INFO`: masks itself when it is signalled.
pub const IRQ_INFO_AUTOMASKED: u32 = 1 << 2;
/// `DEVICE_GET_IRQ_INFO`: set up as one set.
pub const IRQ_INFO_NORESIZE: u32 = 1 << 3;

/// `DEVICE_SET_IRQS`: no data.
pub const IRQ_SET_DATA_NONE: u32 = 1 << 0;
/// `DEVICE_SET_IRQS`: one byte for each vector.
pub const IRQ_SET_DATA_BOOL: u32 = 1 << 1;
/// `DEVICE_SET_IRQS`: one file descriptor for each vector.
pub const IRQ_SET_DATA_EVENTFD: u32 = 1 << 2;
/// `DEVICE_SET_IRQS`: mask.
pub const IRQ_SET_ACTION_MASK: u32 = 1 << 3;
/// `DEVICE_SET_IRQS`: unmask.
pub const IRQ_SET_ACTION_UNMASK: u32 = 1 << 4;
/// `DEVICE_SET_IRQS`: signal, or set what is signalled.
pub const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// `DEVICE_FEATURE`: mask of the feature's number.
pub const FEATURE_MASK: u32 = 0xffff;
/// `DEVICE_FEATURE`: read the feature.
pub const FEATURE_GET: u32 = 1 << 16;
/// `DEVICE_FEATURE`: write the feature.
pub const FEATURE_SET: u32 = 1 << 17;
/// `DEVICE_FEATURE`: ask whether it is supported.
pub const FEATURE_PROBE: u32 = 1 << 18;

/// Feature: migration flags.
pub const FEATURE_MIGRATION: u32 = 1;
/// Feature: migration state.
pub const FEATURE_MIG_DEVICE_STATE: u32 = 2;
/// Feature: start DMA logging.
pub const FEATURE_DMA_LOGGING_START: u32 = 6;
/// Feature: stop DMA logging.
pub const FEATURE_DMA_LOGGING_STOP: u32 = 7;
/// Feature: read and clear the log.
pub const FEATURE_DMA_LOGGING_REPORT: u32 = 8;
/// Feature: size of the migration data.
pub const FEATURE_MIG_DATA_SIZE: u32 = 9;

/// `FEATURE_MIGRATION`: stop-copy is supported (always).
pub const MIGRATION_STOP_COPY: u64 = 1 << 0;
/// `FEATURE_MIGRATION`: the P2P states are supported.
pub const MIGRATION_P2P: u64 = 1 << 1;
/// `FEATURE_MIGRATION`: pre-copy is supported.
pub const MIGRATION_PRE_COPY: u64 = 1 << 2;

/// errno values a server answers with: not permitted.
pub const EPERM: u32 = 1;
/// errno: no such thing.
pub const ENOENT: u32 = 2;
/// errno: I/O error.
pub const EIO: u32 = 5;
/// errno: too big.
pub const E2BIG: u32 = 7;
/// errno: bad file descriptor.
pub const EBADF: u32 = 9;
/// errno: no memory.
pub const ENOMEM: u32 = 12;
/// errno: bad address.
pub const EFAULT: u32 = 14;
/// errno: busy.
pub const EBUSY: u32 = 16;
/// errno: exists.
pub const EEXIST: u32 = 17;
/// errno: invalid.
pub const EINVAL: u32 = 22;
/// errno: not a feature of this device.
pub const ENOTTY: u32 = 25;
/// errno: no space.
pub const ENOSPC: u32 = 28;
/// errno: bad message.
pub const EBADMSG: u32 = 74;
/// errno: not supported.
pub const ENOTSUP: u32 = 95;
