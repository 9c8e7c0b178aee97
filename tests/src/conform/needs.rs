//! What a check needs of the device, or else is skipped.

use super::check::{Checked, fail, skip};
use crate::client::{Client, Error};
use crate::wire::consts;

/// Migration; `consts::MIGRATION_*` of the device.
pub(super) fn migration(client: &mut Client) -> Checked<u64> {
    match client.migration_flags() {
        Ok(flags) => Ok(flags),
        Err(Error::Server { .. }) => skip("the device does not migrate (DEVICE_FEATURE 1 is refused)"),
        Err(error) => Err(error.into()),
    }
}

/// DMA logging.
pub(super) fn logging(client: &mut Client) -> Checked {
    if client.probe_feature(consts::FEATURE_DMA_LOGGING_START, consts::FEATURE_SET)? {
        return Ok(());
    }
    skip("the device does not log its DMA (DEVICE_FEATURE 6 is refused)")
}

/// Most regions, and most kinds of interrupt, that are asked about one by one.
const MOST: u32 = 1024;

/// How many regions the device has.
pub(super) fn regions(client: &mut Client) -> Checked<u32> {
    bounded(client.device_info()?.num_regions, "regions")
}

/// How many kinds of interrupt the device has.
pub(super) fn interrupts(client: &mut Client) -> Checked<u32> {
    bounded(client.device_info()?.num_irqs, "kinds of interrupt")
}

fn bounded(count: u32, what: &str) -> Checked<u32> {
    if count <= MOST {
        return Ok(count);
    }
    fail(format!("the device says that it has {count} {what}"))
}
