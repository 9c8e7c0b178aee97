//! DEVICE_FEATURE as such.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, consts};

use super::{Control, control, echo, put, u32_at};
use crate::proxy::Rule;

use Command::DeviceFeature as Feature;

const METHODS: u32 = consts::FEATURE_GET | consts::FEATURE_SET | consts::FEATURE_PROBE;

/// Number of the feature.
pub(super) fn feature(message: &Message) -> u32 {
    u32_at(message, 4) & consts::FEATURE_MASK
}

/// GET, SET and PROBE, as far as they are set.
pub(super) fn methods(message: &Message) -> u32 {
    u32_at(message, 4) & METHODS
}

fn probes(message: &Message) -> bool {
    methods(message) & consts::FEATURE_PROBE != 0
}

fn gets(message: &Message) -> bool {
    methods(message) == consts::FEATURE_GET
}

fn sets_state(message: &Message) -> bool {
    methods(message) == consts::FEATURE_SET && feature(message) == consts::FEATURE_MIG_DEVICE_STATE
}

fn gets_migration(message: &Message) -> bool {
    gets(message) && feature(message) == consts::FEATURE_MIGRATION
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = methods_controls();
    controls.extend(contents());
    controls
}

fn methods_controls() -> Vec<Control> {
    vec![
        control("feature/a-probe-answers-with-its-request", || {
            Rule::edits(Feature, probes, |_, reply| put(reply, 4, &[0; 4]))
        }),
        control("feature/a-probe-is-for-every-method-named", || {
            Rule::grants(Feature, probes, echo)
        }),
        control("feature/unknown-features-are-refused", || {
            Rule::grants(Feature, |m| feature(m) == 0x7fff, echo)
        }),
        control("feature/get-and-set-exclude-each-other", || {
            let both = |m: &Message| methods(m) == consts::FEATURE_GET | consts::FEATURE_SET;
            Rule::grants(Feature, both, echo)
        }),
        control("feature/a-method-is-needed", || {
            Rule::grants(Feature, |m| methods(m) == 0, echo)
        }),
        control("feature/unknown-flags-are-refused", || {
            Rule::grants(Feature, |m| u32_at(m, 4) >> 19 != 0, echo)
        }),
        control("feature/what-cannot-be-set-is-not-set", || {
            Rule::grants(
                Feature,
                |m| feature(m) == consts::FEATURE_DMA_LOGGING_REPORT,
                echo,
            )
        }),
    ]
}

fn contents() -> Vec<Control> {
    vec![
        control("feature/migration-has-stop-copy", || {
            Rule::edits(Feature, gets_migration, |_, reply| put(reply, 8, &[2]))
        }),
        control("feature/migration-comes-with-its-state", || {
            let probes_state = |m: &Message| probes(m) && feature(m) == consts::FEATURE_MIG_DEVICE_STATE;
            Rule::refuses(Feature, probes_state, consts::ENOTTY)
        }),
        control("feature/logging-comes-whole", || {
            let probes_stop = |m: &Message| probes(m) && feature(m) == consts::FEATURE_DMA_LOGGING_STOP;
            Rule::refuses(Feature, probes_stop, consts::ENOTTY)
        }),
        control("feature/get-adds-its-data", || {
            Rule::edits(Feature, gets, |_, reply| put(reply, 0, &8_u32.to_le_bytes()))
        }),
        control("feature/set-answers-with-its-request", || {
            Rule::edits(Feature, sets_state, |_, reply| put(reply, 12, &[0; 4]))
        }),
        control("feature/less-room-is-kept-to", || {
            Rule::grants(Feature, |m| gets(m) && u32_at(m, 0) < 16, |_| vec![0; 16])
        }),
        control("feature/data-are-all-there", || {
            Rule::grants(Feature, |m| sets_state(m) && m.payload.len() < 16, echo)
        }),
    ]
}
