//! What this project adds to the protocol, on servers that announce it.

use super::{CHUNK, migrating, pre_copying, read_to_end};
use crate::client::Error;
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::wire::{MigState, consts};

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "stream/the-data-size-is-an-upper-bound",
            Source::Extension("Version: mig_data_size"),
            "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE is no less than the bytes that follow, before and in STOP_COPY.",
            data_size,
        ),
        Check::new(
            "stream/pre-copy-info-is-for-pre-copy",
            Source::Extension("Command 19: MIG_GET_PRECOPY_INFO"),
            "MIG_GET_PRECOPY_INFO is answered in PRE_COPY, and is EINVAL elsewhere.",
            precopy_info,
        ),
    ]
}

fn data_size(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    if client.capabilities().mig_data_size != Some(true) {
        return skip("the server does not announce `mig_data_size`");
    }
    let running = client.mig_data_size()?;
    client.set_mig_state(MigState::StopCopy)?;
    let stopped = client.mig_data_size()?;
    let length = read_to_end(&mut client, CHUNK)?.len() as u64;
    expect::that(length <= running && length <= stopped, || {
        format!("the stream has {length} bytes; {running} were announced in RUNNING, {stopped} in STOP_COPY")
    })
}

fn precopy_info(probe: &Probe<'_>) -> Checked {
    let mut client = pre_copying(probe)?;
    if client.capabilities().mig_precopy_info != Some(true) {
        return skip("the server does not announce `mig_precopy_info`");
    }
    for state in [MigState::Running, MigState::Stop, MigState::StopCopy] {
        client.set_mig_state(state)?;
        match client.precopy_info() {
            Err(Error::Server { errno, .. }) => {
                expect::number(&format!("errno in {state}"), errno, consts::EINVAL)?;
            }
            Ok(_) => return fail(format!("it is answered in {state}")),
            Err(error) => return Err(error.into()),
        }
    }
    client.set_mig_state(MigState::Running)?;
    client.set_mig_state(MigState::PreCopy)?;
    let info = client.precopy_info()?;
    expect::number("argsz", info.argsz, 24_u64)?;
    expect::number("the flags", info.flags, 0_u64)
}
