//! Which parts of a guest's memory change when.
//!
//! A [`Sampler`] reads the file behind the guest's memory again and again, and compares a hash of each page with what it
//! was before ([`PageScan`]). What changed is counted by address and time in a [`HeatMap`] of bounded size, whatever the
//! size of the guest and however long it runs.
//!
//! It sees what guest and devices leave behind, not single writes: a page that is written twice between two looks counts
//! once, and one that is written with what it held before does not count. It decides nothing; that is for the oracle and
//! for the guest's own check.

mod log;
mod sampler;
mod scan;

pub use log::{HeatColumn, HeatLog, HeatMap};
pub use sampler::{HeatError, Sampler};
pub use scan::PageScan;
