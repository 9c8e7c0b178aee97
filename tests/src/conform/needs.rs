//! What a check needs of the device, or else is skipped.

use super::check::{Checked, skip};
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
