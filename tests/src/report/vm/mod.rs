//! What migrations of VMs did, scenario by scenario.
//!
//! [`VmReport`] is all that was found out; [`suite()`] and [`text()`] tell it to CI systems and to terminals, and
//! [`html`](super::html()) to browsers. It serialises to JSON, and a page can be made from that later, elsewhere.

mod model;
mod suite;
mod text;

pub use model::{Ending, Migration, Outcome, Pass, Phase, RunInfo, Sample, ScenarioReport, VmReport};
pub use suite::suite;
pub use text::text;
