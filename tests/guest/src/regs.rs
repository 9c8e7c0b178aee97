//! Registers of the `dma` device: constants only.

/// Vendor.
pub const VENDOR: u16 = 0x1234;
/// Device.
pub const DEVICE: u16 = 0x7074;
/// Value of `ID`.
pub const ID_VALUE: u32 = 0x5254_4750;
/// The BAR with registers and doorbells.
pub const BAR: u32 = 0;

/// Offset of `ID`.
pub const ID: u64 = 0x000;
/// Offset of `VERSION`.
pub const VERSION: u64 = 0x004;
/// Offset of `LANES`.
pub const LANES: u64 = 0x008;
/// Offset of `MAX_ENTRIES`.
pub const MAX_ENTRIES: u64 = 0x00c;
/// Offset of `CONTROL`.
pub const CONTROL: u64 = 0x010;
/// Offset of `STATUS`.
pub const STATUS: u64 = 0x014;
/// Offset of `INT_CAUSE`.
pub const INT_CAUSE: u64 = 0x018;
/// Offset of `INT_ENABLE`.
pub const INT_ENABLE: u64 = 0x01c;
/// Offset of `DESC_BASE`.
pub const DESC_BASE: u64 = 0x020;
/// Offset of `COMP_BASE`.
pub const COMP_BASE: u64 = 0x028;
/// Offset of `RING_ENTRIES`.
pub const RING_ENTRIES: u64 = 0x030;
/// Offset of `RING_HEAD`.
pub const RING_HEAD: u64 = 0x034;
/// Offset of `COMP_TAIL`.
pub const COMP_TAIL: u64 = 0x038;
/// Offset of `ERROR`.
pub const ERROR: u64 = 0x03c;
/// Offset of `GEN_BASE`.
pub const GEN_BASE: u64 = 0x100;
/// Offset of `GEN_PAGES`.
pub const GEN_PAGES: u64 = 0x108;
/// Offset of `GEN_SEED`.
pub const GEN_SEED: u64 = 0x110;
/// Offset of `GEN_RATE`.
pub const GEN_RATE: u64 = 0x118;
/// Offset of `GEN_LIMIT`.
pub const GEN_LIMIT: u64 = 0x120;
/// Offset of `GEN_POSITION[0]`; the others follow, 8 bytes each.
pub const GEN_POSITION: u64 = 0x200;
/// Offset of `RING_TAIL`.
pub const RING_TAIL: u64 = 0x1000;
/// Offset of `COMP_HEAD`.
pub const COMP_HEAD: u64 = 0x1004;

/// `CONTROL`: the ring is on.
pub const CONTROL_RING_ENABLE: u32 = 1 << 0;
/// `CONTROL`: the generator is on.
pub const CONTROL_GEN_ENABLE: u32 = 1 << 1;

/// `STATUS`: descriptors are fetched and not completed.
pub const STATUS_RING_BUSY: u32 = 1 << 0;
/// `STATUS`: the generator runs.
pub const STATUS_GEN_RUNNING: u32 = 1 << 1;
/// `STATUS`: the ring has stopped with an error.
pub const STATUS_RING_ERROR: u32 = 1 << 2;
/// `STATUS`: the generator has stopped with an error.
pub const STATUS_GEN_ERROR: u32 = 1 << 3;
/// `STATUS`: the device needs a reset.
pub const STATUS_FAILED: u32 = 1 << 4;

/// `INT_CAUSE`: a completion.
pub const CAUSE_COMPLETION: u32 = 1 << 0;
/// `INT_CAUSE`: the generator has finished.
pub const CAUSE_GEN_FINISHED: u32 = 1 << 1;
/// `INT_CAUSE`: a ring error.
pub const CAUSE_RING_ERROR: u32 = 1 << 2;
/// `INT_CAUSE`: a generator error.
pub const CAUSE_GEN_ERROR: u32 = 1 << 3;
/// `INT_CAUSE`: every cause.
pub const CAUSE_ALL: u32 = 0xf;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u64 = 64;
/// Bytes of a completion.
pub const COMPLETION_SIZE: u64 = 32;
/// A descriptor's flag: raise the completion cause when done.
pub const DESCRIPTOR_INTERRUPT: u32 = 1 << 0;

/// Error: none.
pub const ERROR_NONE: u32 = 0;
/// Error: bad opcode, flags, length or reserved field.
pub const ERROR_DESCRIPTOR: u32 = 1;
/// Error: an address is not mapped, or not for this access.
pub const ERROR_ADDRESS: u32 = 2;
/// Error: bad doorbell.
pub const ERROR_DOORBELL: u32 = 3;
/// Error: bad ring configuration.
pub const ERROR_RING: u32 = 4;
/// Error: bad generator configuration.
pub const ERROR_GENERATOR: u32 = 5;
/// Error: bus mastering is off.
pub const ERROR_BUS_MASTER: u32 = 6;
/// Error: the memory behind an address failed.
pub const ERROR_MEMORY: u32 = 7;
