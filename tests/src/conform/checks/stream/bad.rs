//! Streams that must be refused: a device would run with a state that it never had.

use super::{CHUNK, RESUMING, WRITE, ask_write, is_taken, migrating, offer, saved};
use crate::client::{Client, Error};
use crate::conform::ask::Ask;
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::wire::{Command, MigState, consts};

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "stream/a-write-has-all-its-data",
            WRITE,
            "A write whose size is more than the data that came is refused.",
            missing_data,
        ),
        Check::new(
            "stream/an-incomplete-stream-is-refused",
            RESUMING,
            "A stream that ends too early is refused: by a write, or by the way out of RESUMING.",
            truncated,
        ),
        Check::new(
            "stream/a-damaged-stream-is-refused",
            RESUMING,
            "A stream with one bit flipped anywhere is refused: the device would run with a state that it never had.",
            flipped,
        ),
        Check::new(
            "stream/bytes-behind-the-end-are-refused",
            RESUMING,
            "A stream with more behind its end is refused.",
            trailing,
        ),
        Check::new(
            "stream/a-foreign-stream-is-refused",
            RESUMING,
            "Bytes that are no stream of such a device are refused.",
            foreign,
        ),
        Check::new(
            "stream/a-refusal-can-be-recovered-from",
            Source::Spec("Direct State Transitions: ERROR"),
            "After a refused stream DEVICE_RESET leads back to RUNNING, and the right stream is taken.",
            recovered,
        ),
    ]
}

/// A refused stream, and the reset that leads out of it.
fn is_refused(client: &mut Client, stream: &[u8], what: &str) -> Checked {
    match offer(client, stream, CHUNK) {
        Err(Error::Server { .. }) => {}
        Ok(()) => return fail(format!("{what} is taken")),
        Err(error) => return fail(format!("{what}: {error}")),
    }
    client.device_reset()?;
    let state = client.mig_state()?;
    expect::that(state == MigState::Running, || {
        format!("after {what} and a reset the device is in {state}")
    })
}

/// As [`saved`], of a device that can be reset: a refused stream leaves no other way.
fn saved_resettable(probe: &Probe<'_>) -> Checked<(Client, Vec<u8>)> {
    let mut client = probe.ready()?;
    if client.device_info()?.flags & consts::DEVICE_FLAGS_RESET == 0 {
        return skip("the device has no reset, which is the way out of a refused stream");
    }
    drop(client);
    saved(probe)
}

fn missing_data(probe: &Probe<'_>) -> Checked {
    for (size, data) in [(8, 0), (64, 63), (u32::MAX, 8)] {
        let mut client = migrating(probe)?;
        client.set_mig_state(MigState::Resuming)?;
        let answer = ask_write(&mut client, size, &vec![0; data])?;
        answer.refused(&format!("a write of {size} bytes with {data} of them"))?;
    }
    Ok(())
}

/// Positions all over a stream: its ends, and some between.
fn positions(length: usize) -> Vec<usize> {
    let step = (length / 31).max(1);
    let mut all: Vec<usize> = (0..length.min(12))
        .chain((0..length).step_by(step))
        .chain(length.saturating_sub(12)..length)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn truncated(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved_resettable(probe)?;
    // Without a byte nothing is migrated, and what that means is the server's choice.
    for length in positions(stream.len()).into_iter().filter(|length| *length > 0) {
        let what = format!("a stream of {length} bytes of {}", stream.len());
        is_refused(&mut client, &stream[..length], &what)?;
    }
    Ok(())
}

fn flipped(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved_resettable(probe)?;
    for position in positions(stream.len()) {
        let mut bad = stream.clone();
        bad[position] ^= 1 << (position % 8);
        let what = format!(
            "a stream with a bit of byte {position} of {} flipped",
            stream.len()
        );
        is_refused(&mut client, &bad, &what)?;
    }
    Ok(())
}

fn trailing(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved_resettable(probe)?;
    is_refused(
        &mut client,
        &[stream.as_slice(), &[0]].concat(),
        "a stream with a byte behind it",
    )?;
    is_refused(
        &mut client,
        &[stream.as_slice(), &stream].concat(),
        "a stream that comes twice",
    )
}

fn foreign(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved_resettable(probe)?;
    for length in [stream.len(), 16, 4096] {
        for byte in [0, 0x5a, 0xff] {
            let what = format!("{length} bytes of {byte:#x}");
            is_refused(&mut client, &vec![byte; length], &what)?;
        }
    }
    Ok(())
}

fn recovered(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved_resettable(probe)?;
    client.set_mig_state(MigState::Resuming)?;
    // Refused or not: what counts is what comes afterwards.
    let _ = ask_write(&mut client, 32, &[0x5a; 32])?;
    client
        .ask(Command::DeviceReset, &[])?
        .done("DEVICE_RESET in RESUMING")?;
    let state = client.mig_state()?;
    expect::that(state == MigState::Running, || {
        format!("after the reset the device is in {state}")
    })?;
    is_taken(&mut client, &stream, CHUNK)
}
