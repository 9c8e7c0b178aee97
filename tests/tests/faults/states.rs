//! The migration states.

use std::sync::atomic::{AtomicU32, Ordering};

use vfio_user_check::client::Message;
use vfio_user_check::conform::registry;
use vfio_user_check::wire::{Command, MigState, consts};

use super::feature::{feature, methods};
use super::{Control, control, echo, put, u32_at};
use crate::proxy::{Rule, Verdict, always, done, refusal};

use Command::DeviceFeature as Feature;

pub(super) fn sets_state(message: &Message) -> bool {
    methods(message) == consts::FEATURE_SET && feature(message) == consts::FEATURE_MIG_DEVICE_STATE
}

/// The state that is asked for.
pub(super) fn asked_for(message: &Message) -> u32 {
    u32_at(message, 8)
}

fn gets_state(message: &Message) -> bool {
    methods(message) == consts::FEATURE_GET && feature(message) == consts::FEATURE_MIG_DEVICE_STATE
}

fn gets_migration(message: &Message) -> bool {
    methods(message) == consts::FEATURE_GET && feature(message) == consts::FEATURE_MIGRATION
}

fn is_optional(message: &Message) -> bool {
    sets_state(message) && asked_for(message) >= MigState::RunningP2p as u32
}

/// A device that says it is stopped.
pub(super) fn says_stop() -> Rule {
    Rule::edits(Feature, gets_state, |_, reply| put(reply, 8, &[1]))
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = vec![
        control("states/a-device-begins-in-running", says_stop),
        control("states/unknown-numbers-are-refused", || {
            Rule::grants(Feature, |m| sets_state(m) && asked_for(m) > 7, echo)
        }),
        control("states/error-cannot-be-asked-for", || {
            Rule::grants(Feature, |m| sets_state(m) && asked_for(m) == 0, echo)
        }),
        control("states/what-is-not-announced-is-refused", || {
            Rule::pretends(Feature, is_optional, echo)
        })
        .on(|| {
            vec![
                Rule::edits(Feature, gets_migration, |_, reply| put(reply, 8, &[1])),
                Rule::refuses(Feature, is_optional, consts::EINVAL),
            ]
        }),
        control("states/a-stopped-device-can-be-set-up", || {
            Rule::refuses(Command::DmaMap, always, consts::EBUSY)
        }),
    ];
    controls.extend(arcs());
    controls
}

/// A state by its name in a check's.
fn state(written: &str) -> Option<MigState> {
    let name = written.to_uppercase().replace('-', "_");
    MigState::ALL.into_iter().find(|state| state.to_string() == name)
}

/// For every check of a way between two states a device that takes it wrongly.
fn arcs() -> Vec<Control> {
    registry::all()
        .iter()
        .filter_map(|check| arc(check.name()))
        .collect()
}

fn arc(check: &str) -> Option<Control> {
    let name = check.strip_prefix("states/")?;
    if let Some(from) = name.strip_suffix("-stays").and_then(state) {
        return Some(control(check, move || wrong_way(from, from, Wrong::Refused)));
    }
    let (way, wrong) = match name.strip_suffix("-is-refused") {
        Some(way) => (way, Wrong::Granted),
        None => (name, Wrong::Refused),
    };
    let (from, to) = way.split_once("-to-")?;
    let (from, to) = (state(from)?, state(to)?);
    Some(control(check, move || wrong_way(from, to, wrong)))
}

#[derive(Clone, Copy)]
enum Wrong {
    /// A way that exists is refused.
    Refused,
    /// A way that does not exist is granted.
    Granted,
}

/// Does wrong when `to` is asked for in `from`.
fn wrong_way(from: MigState, to: MigState, wrong: Wrong) -> Rule {
    let state = AtomicU32::new(MigState::Running as u32);
    Rule::Request(Box::new(move |message| {
        if message.header.command != Feature as u16 || !sets_state(message) {
            return Verdict::Forward;
        }
        let before = state.swap(asked_for(message), Ordering::Relaxed);
        if (before, asked_for(message)) != (from as u32, to as u32) {
            return Verdict::Forward;
        }
        Verdict::Answer(match wrong {
            Wrong::Refused => refusal(message, consts::EINVAL),
            Wrong::Granted => done(message, echo(message)),
        })
    }))
}
