//! The VFIO v2 migration state machine and the stream that a device's state travels in.
//!
//! | module | what it is |
//! |---|---|
//! | [`state`](MigState) | the states, and the kernel's table of arcs between them |
//! | [`machine`](Migration) | walks the arcs over a [`Target`], and moves migration data |
//! | [`stream`] | the framing of a device's saved state |
//!
//! Everything here is arithmetic on values: no I/O, no threads, no clock. The session decodes the messages, holds the one
//! [`Migration`] of its device, and is its [`Target`].
//!
//! Not here: dirty tracking, which the client starts and stops on its own, and what a device's state means, which is the
//! device's ([`SavedState`](crate::device::SavedState)).

mod machine;
mod state;
pub mod stream;

pub use machine::{MigDataError, Migration, PrecopyInfo, SetStateError, Target, TargetError};
pub use state::{Arc, BadArc, MigState, UnknownState, next_arc};
