//! The stream of saved state.

use zerocopy::IntoBytes;

use crate::client::{Client, Error};
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::drive::Driven;
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::driver::regs;
use crate::wire::{Command, MigData, MigState, consts};

const READ: Source = Source::Spec("VFIO_USER_MIG_DATA_READ");
const WRITE: Source = Source::Spec("VFIO_USER_MIG_DATA_WRITE");
const RESUMING: Source = Source::Spec("Direct State Transitions: RESUMING -> STOP");
const SAVING: Source = Source::Spec("Direct State Transitions");
const STREAM: Source = Source::Uapi("struct vfio_device_feature_mig_state");
const SIZES: Source = Source::Spec("Message sizes");

/// Most bytes of a stream: one that never ends is at fault.
const MOST: usize = 256 << 20;

/// Bytes of a message where it does not matter.
const CHUNK: u32 = 1 << 16;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = good_streams();
    checks.extend(bad_streams());
    checks.extend(extensions());
    checks
}

fn good_streams() -> Vec<Check> {
    vec![
        Check::new(
            "stream/a-saved-state-is-taken",
            WRITE,
            "The stream of a device, read to its end in STOP_COPY, is taken in RESUMING, and the device runs again.",
            |probe| {
                let (mut client, stream) = saved(probe)?;
                is_taken(&mut client, &stream, CHUNK)
            },
        ),
        Check::new(
            "stream/pieces-need-not-be-kept",
            STREAM,
            "The stream may be read in small pieces, and be written in others.",
            pieces,
        ),
        Check::new(
            "stream/the-state-travels",
            RESUMING,
            "A device that has taken a stream is in the state that was saved.",
            state_travels,
        ),
        Check::new(
            "stream/a-read-is-what-it-says",
            READ,
            "The reply to a read has no more than was asked for, and its argsz, its size and its length agree.",
            read_shape,
        ),
        Check::new(
            "stream/the-end-is-told",
            READ,
            "A read of less than was asked for is the last: after it there is nothing.",
            end_is_told,
        ),
        Check::new(
            "stream/less-room-is-kept-to",
            SIZES,
            "The reply to a read is never longer than argsz of its request.",
            little_room,
        ),
        Check::new(
            "stream/it-is-read-while-saving-only",
            READ,
            "Outside of PRE_COPY and STOP_COPY there is nothing to read: it is refused.",
            read_elsewhere,
        ),
        Check::new(
            "stream/it-is-written-in-resuming-only",
            WRITE,
            "Outside of RESUMING a write is refused.",
            write_elsewhere,
        ),
        Check::new(
            "stream/a-session-that-ended-begins-anew",
            SAVING,
            "Leaving STOP_COPY ends the session: what is read when it is entered again is a whole stream.",
            begins_anew,
        ),
        Check::new(
            "stream/pre-copy-goes-on-in-stop-copy",
            SAVING,
            "What was read in PRE_COPY and what is read in STOP_COPY after it are one stream.",
            pre_copy_goes_on,
        ),
        Check::new(
            "stream/a-pre-copy-given-up-is-forgotten",
            SAVING,
            "PRE_COPY to RUNNING ends the session: the next one is a whole stream.",
            pre_copy_given_up,
        ),
    ]
}

fn bad_streams() -> Vec<Check> {
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

fn extensions() -> Vec<Check> {
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

/// A client of a device that migrates.
fn migrating(probe: &Probe<'_>) -> Checked<Client> {
    let mut client = probe.ready()?;
    needs::migration(&mut client)?;
    Ok(client)
}

/// A client of a device that migrates and has PRE_COPY.
fn pre_copying(probe: &Probe<'_>) -> Checked<Client> {
    let mut client = probe.ready()?;
    if needs::migration(&mut client)? & consts::MIGRATION_PRE_COPY != 0 {
        return Ok(client);
    }
    skip("the device has no PRE_COPY")
}

/// Reads a stream up to the empty answer that ends it.
pub(super) fn read_to_end(client: &mut Client, chunk: u32) -> Checked<Vec<u8>> {
    let mut stream = Vec::new();
    loop {
        let data = client.mig_data_read(chunk)?;
        if data.is_empty() {
            return Ok(stream);
        }
        stream.extend_from_slice(&data);
        expect::that(stream.len() <= MOST, || {
            format!("the stream has more than {MOST} bytes")
        })?;
    }
}

/// Writes a stream.
pub(super) fn write(client: &mut Client, stream: &[u8], chunk: u32) -> Checked {
    let limit = client.capabilities().max_data_xfer_size().max(1);
    let mut pieces = stream.chunks(limit.min(chunk as usize));
    Ok(pieces.try_for_each(|piece| client.mig_data_write(piece))?)
}

/// A client of a device in STOP_COPY, and its whole stream.
fn saved(probe: &Probe<'_>) -> Checked<(Client, Vec<u8>)> {
    let mut client = migrating(probe)?;
    client.set_mig_state(MigState::StopCopy)?;
    let stream = read_to_end(&mut client, CHUNK)?;
    expect::that(!stream.is_empty(), || {
        "the stream of the device is empty".to_owned()
    })?;
    Ok((client, stream))
}

/// Offers a stream to the device, by way of RESUMING to STOP.
fn offer(client: &mut Client, stream: &[u8], chunk: u32) -> Result<(), Error> {
    client.set_mig_state(MigState::Resuming)?;
    stream
        .chunks(chunk.max(1) as usize)
        .try_for_each(|piece| client.mig_data_write(piece))?;
    client.set_mig_state(MigState::Stop)
}

fn is_taken(client: &mut Client, stream: &[u8], chunk: u32) -> Checked {
    match offer(client, stream, chunk) {
        Ok(()) => match client.set_mig_state(MigState::Running) {
            Ok(()) => Ok(()),
            Err(error) => fail(format!(
                "the device has taken its own stream, and does not run: {error}"
            )),
        },
        Err(error) => fail(format!(
            "the device's own stream of {} bytes, in pieces of {chunk}, is not taken: {error}",
            stream.len()
        )),
    }
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

fn pieces(probe: &Probe<'_>) -> Checked {
    let (mut client, stream) = saved(probe)?;
    // Few messages, whatever the stream's length: pieces of one byte only where it is short.
    let small = (stream.len() / 512).max(1) as u32;
    is_taken(&mut client, &stream, small)?;
    client.set_mig_state(MigState::StopCopy)?;
    let again = read_to_end(&mut client, small)?;
    is_taken(&mut client, &again, 3 * small + 1)
}

fn state_travels(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::migration(driven.client(0))?;
    driven.start_generators()?;
    driven.await_writes(100)?;
    let client = driven.client(0);
    client.set_mig_state(MigState::StopCopy)?;
    let stream = read_to_end(client, CHUNK)?;
    let registers = |driven: &mut Driven| -> Checked<_> {
        let mut dma = driven.dma(0)?;
        Ok((
            dma.generator()?,
            dma.positions()?,
            dma.read(regs::CONTROL)?,
            dma.read(regs::RING_HEAD)?,
        ))
    };
    let before = registers(&mut driven)?;
    let client = driven.client(0);
    client.device_reset()?;
    if let Err(error) = offer(client, &stream, CHUNK) {
        return fail(format!("the device's own stream is not taken: {error}"));
    }
    let after = registers(&mut driven)?;
    expect::equal("what the registers hold after the load", &after, &before)
}

fn ask_read(client: &mut Client, argsz: u32, size: u32) -> Checked<Answer> {
    client.ask(Command::MigDataRead, MigData { argsz, size }.as_bytes())
}

fn read_shape(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    client.set_mig_state(MigState::StopCopy)?;
    for size in [1, 7, 64, 4096, CHUNK, CHUNK] {
        let reply = ask_read(&mut client, 8 + size, size)?.done(&format!("a read of {size} bytes"))?;
        let head: MigData = parsed(&reply)?;
        expect::that(head.size <= size, || {
            format!("a read of {size} bytes has {}", head.size)
        })?;
        expect::number("argsz", head.argsz, 8 + u64::from(head.size))?;
        expect::number(
            "the payload's length",
            reply.payload.len() as u64,
            8 + u64::from(head.size),
        )?;
    }
    Ok(())
}

fn end_is_told(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    client.set_mig_state(MigState::StopCopy)?;
    let mut got = 0;
    while client.mig_data_read(CHUNK)?.len() == CHUNK as usize {
        got += CHUNK as usize;
        expect::that(got <= MOST, || format!("the stream has more than {MOST} bytes"))?;
    }
    for _ in 0..3 {
        let more = client.mig_data_read(CHUNK)?.len();
        expect::number("the bytes after a read that came short", more as u64, 0_u64)?;
    }
    Ok(())
}

fn little_room(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    client.set_mig_state(MigState::StopCopy)?;
    for argsz in [0, 7, 8, 9, 32] {
        if let Answer::Done(reply) = ask_read(&mut client, argsz, 64)? {
            expect::that(reply.payload.len() <= argsz as usize, || {
                format!(
                    "the reply has {} bytes, with room for {argsz}",
                    reply.payload.len()
                )
            })?;
        }
    }
    Ok(())
}

fn read_elsewhere(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    for state in [MigState::Running, MigState::Stop, MigState::Resuming] {
        client.set_mig_state(state)?;
        ask_read(&mut client, 8 + 64, 64)?.refused(&format!("a read in {state}"))?;
    }
    Ok(())
}

fn write_elsewhere(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    for state in [MigState::Running, MigState::Stop, MigState::StopCopy] {
        client.set_mig_state(state)?;
        ask_write(&mut client, 8, &[0; 8])?.refused(&format!("a write in {state}"))?;
    }
    Ok(())
}

fn ask_write(client: &mut Client, size: u32, data: &[u8]) -> Checked<Answer> {
    let argsz = (size_of::<MigData>() + data.len()) as u32;
    let payload = [MigData { argsz, size }.as_bytes(), data].concat();
    client.ask(Command::MigDataWrite, &payload)
}

fn begins_anew(probe: &Probe<'_>) -> Checked {
    let mut client = migrating(probe)?;
    client.set_mig_state(MigState::StopCopy)?;
    client.mig_data_read(16)?;
    client.set_mig_state(MigState::Stop)?;
    client.set_mig_state(MigState::StopCopy)?;
    let stream = read_to_end(&mut client, CHUNK)?;
    is_taken(&mut client, &stream, CHUNK)
}

fn pre_copy_goes_on(probe: &Probe<'_>) -> Checked {
    let mut client = pre_copying(probe)?;
    client.set_mig_state(MigState::PreCopy)?;
    let mut stream = client.mig_data_read(CHUNK)?;
    client.set_mig_state(MigState::StopCopy)?;
    stream.extend(read_to_end(&mut client, CHUNK)?);
    is_taken(&mut client, &stream, CHUNK)
}

fn pre_copy_given_up(probe: &Probe<'_>) -> Checked {
    let mut client = pre_copying(probe)?;
    client.set_mig_state(MigState::PreCopy)?;
    client.mig_data_read(16)?;
    client.set_mig_state(MigState::Running)?;
    client.set_mig_state(MigState::PreCopy)?;
    let mut stream = client.mig_data_read(16)?;
    client.set_mig_state(MigState::StopCopy)?;
    stream.extend(read_to_end(&mut client, CHUNK)?);
    is_taken(&mut client, &stream, CHUNK)
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
