//! What the programs that run in rigs have in common: drivers of devices that write what they are told to, a race of their writes
//! against reads of their log with an oracle, and TAP.
//!
//! The devices are QEMU's, with our series for the rigs. How their registers and memory are reached is each program's own:
//! [`Registers`] and [`Memory`]. Of trackers, VFIO and vfio-user nothing is known here.

mod copies;
mod engine;
mod memory;
mod pages;
pub mod race;
mod registers;
mod tap;

pub use copies::Copies;
pub use engine::{Completions, Engine, Kind, Landing, Limits, Outcome, Reads, edu, nvme, vf};
pub use memory::{Memory, SCRATCH_PAGES, Scratch};
pub use pages::{MIB, PAGE, equal, some_pages};
pub use registers::Registers;
pub use tap::Tap;
