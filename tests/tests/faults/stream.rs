//! The stream of saved state.

use std::sync::atomic::{AtomicBool, Ordering};

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, MigState, consts};

use super::feature::feature;
use super::states::{asked_for, sets_state};
use super::{Control, asked, control, control_of, echo, nothing, put, u32_at};
use crate::proxy::{Rule, always};

use Command::{DeviceFeature as Feature, MigDataRead as Read, MigDataWrite as Write};

/// A device that takes whatever is written to it.
fn takes_anything() -> Vec<Rule> {
    vec![
        Rule::grants(Write, always, nothing),
        Rule::grants(Feature, sets_state, echo),
    ]
}

/// A device that does not take the way to `state`, and says that it has.
fn stays(state: MigState) -> Rule {
    match state {
        MigState::Stop => Rule::pretends(Feature, |m| sets_state(m) && asked_for(m) == 1, echo),
        _ => Rule::pretends(Feature, |m| sets_state(m) && asked_for(m) == 2, echo),
    }
}

/// Loses what is read first.
fn loses_the_first() -> Rule {
    let lost = AtomicBool::new(false);
    Rule::edits(Read, always, move |_, reply| {
        if !lost.swap(true, Ordering::Relaxed) {
            reply.payload.truncate(8);
            put(reply, 0, &[8, 0, 0, 0, 0, 0, 0, 0]);
        }
    })
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = good_streams();
    controls.extend(bad_streams());
    controls
}

fn good_streams() -> Vec<Control> {
    vec![
        control("stream/a-saved-state-is-taken", || {
            Rule::refuses(Write, always, consts::EINVAL)
        }),
        control("stream/pieces-need-not-be-kept", || {
            Rule::refuses(Write, |m| m.payload.len() < 64, consts::EINVAL)
        }),
        control("stream/the-state-travels", || {
            Rule::pretends(Write, always, nothing)
        }),
        control("stream/a-read-is-what-it-says", || {
            Rule::edits(Read, asked, |_, reply| put(reply, 0, &8_u32.to_le_bytes()))
        }),
        control("stream/the-end-is-told", || {
            Rule::edits(Read, always, |_, reply| {
                if u32_at(reply, 4) == 0 {
                    reply.payload = vec![9, 0, 0, 0, 1, 0, 0, 0, 0x77];
                }
            })
        }),
        control("stream/less-room-is-kept-to", || {
            Rule::grants(Read, asked, |_| vec![0; 72])
        }),
        control("stream/it-is-read-while-saving-only", || {
            Rule::grants(Read, asked, |_| vec![8, 0, 0, 0, 0, 0, 0, 0])
        }),
        control("stream/it-is-written-in-resuming-only", || {
            Rule::grants(Write, asked, nothing)
        }),
        control("stream/a-session-that-ended-begins-anew", || {
            stays(MigState::Stop)
        }),
        control("stream/pre-copy-goes-on-in-stop-copy", loses_the_first),
        control("stream/a-pre-copy-given-up-is-forgotten", || {
            stays(MigState::Running)
        }),
    ]
}

fn bad_streams() -> Vec<Control> {
    vec![
        control("stream/a-write-has-all-its-data", || {
            let has_too_few = |m: &Message| (m.payload.len() - 8) < u32_at(m, 4) as usize;
            Rule::grants(Write, has_too_few, nothing)
        }),
        control_of("stream/an-incomplete-stream-is-refused", takes_anything),
        control_of("stream/a-damaged-stream-is-refused", takes_anything),
        control_of("stream/bytes-behind-the-end-are-refused", takes_anything),
        control_of("stream/a-foreign-stream-is-refused", takes_anything),
        control("stream/a-refusal-can-be-recovered-from", || {
            Rule::pretends(Command::DeviceReset, asked, nothing)
        }),
        control("stream/the-data-size-is-an-upper-bound", || {
            let is_size = |m: &Message| feature(m) == consts::FEATURE_MIG_DATA_SIZE;
            Rule::edits(Feature, is_size, |_, reply| put(reply, 8, &1_u64.to_le_bytes()))
        }),
        control("stream/pre-copy-info-is-for-pre-copy", || {
            Rule::grants(Command::MigGetPrecopyInfo, always, |_| vec![24; 24])
        }),
    ]
}
