//! The outcome for people and for machines.
//!
//! [`Text`] and [`Tap`] are told while the run goes on; [`junit()`] and [`json()`] write what came of it.

mod json;
mod junit;
mod progress;
mod tap;
mod text;

pub use json::json;
pub use junit::junit;
pub use progress::Progress;
pub use tap::Tap;
pub use text::{Text, list};
