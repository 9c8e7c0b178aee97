//! A driver for the reference device `dma` (its register map is `docs/src/dma-device.md`).
//!
//! [`Dma`] reads and writes registers, [`Ring`] is the driver's half of the descriptor and completion rings, and
//! [`Generator`] knows what the device's generator has written at given positions, on either side of a migration.
//!
//! Everything a guest would keep in its memory ([`Ring`], [`Generator`]) is apart from the connection, so that it goes on
//! with another device after a migration.

mod dma;
mod generator;
pub mod regs;
mod replay;
mod ring;

pub use dma::{Dma, DriverError};
pub use generator::{Generator, LaneWrite};
pub use replay::{Mismatch, check_window};
pub use ring::{Completion, Descriptor, Operation, Ring};
