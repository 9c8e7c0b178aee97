//! What a migration did, for people and for machines.
// Figures for people: none is negative, and they are rounded anyway.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod html;
mod junit;
mod plain;
mod progress;
mod svg;
mod text;
mod units;
pub mod vm;

pub use html::html;
pub(crate) use junit::escaped;
pub use junit::{Case, CaseResult, Suite, junit};
pub use progress::ProgressBar;
pub use svg::svg;
pub use text::text;
pub use units::{bytes, count, seconds};
