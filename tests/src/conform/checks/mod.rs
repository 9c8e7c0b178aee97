//! The checks, one file for each topic.

mod access;
mod device;
mod disconnect;
mod dma;
mod feature;
mod framing;
mod irq;
mod region;
mod reset;
mod set_irqs;
mod version;

use super::check::Check;

/// Every check of every topic.
pub(super) fn all() -> Vec<Check> {
    [
        version::checks(),
        framing::checks(),
        device::checks(),
        region::checks(),
        access::checks(),
        irq::checks(),
        set_irqs::checks(),
        dma::checks(),
        feature::checks(),
        reset::checks(),
        disconnect::checks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
