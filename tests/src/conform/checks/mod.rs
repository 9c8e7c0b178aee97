//! The checks, one file for each topic.

mod access;
mod concurrent;
mod device;
mod disconnect;
mod dma;
mod feature;
mod framing;
mod irq;
mod logging;
mod region;
mod reset;
mod set_irqs;
mod several;
mod states;
mod stream;
mod version;
mod written;

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
        states::checks(),
        stream::checks(),
        logging::checks(),
        written::checks(),
        several::checks(),
        concurrent::checks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
