//! What a test VM runs, and what a test shares with it.
//!
//! The program `pagetrail-guest` is the VM's `/init`: an agent that finds every `dma` device, works it through its registers,
//! rings and interrupts as a driver does, knows at any time what memory must hold, and says whether it does. A test talks to it
//! over a serial line, before and after a migration, and to the same program: it has no idea that it was moved.
//!
//! * [`protocol`]: what a test asks and what the agent answers.
//! * [`regs`], [`Generator`], [`Ring`]: the reference device from its driver's side (its register map is
//!   `docs/src/dma-device.md`), over any [`Memory`].
//! * [`Arena`]: memory that the device's descriptors work on, with a shadow that knows what it must hold.
//! * [`agent`]: the program.
//!
//! Nothing here knows of migration, QEMU or vfio-user.

pub mod agent;
mod arena;
mod generator;
mod memory;
pub mod protocol;
mod random;
pub mod regs;
mod replay;
mod ring;

pub use arena::{Arena, Batch, Damage};
pub use generator::{Generator, LaneWrite};
pub use memory::{Memory, PAGE_SIZE};
pub use random::Random;
pub use replay::{Mismatch, check_window};
pub use ring::{Completion, Descriptor, Operation, Ring};
