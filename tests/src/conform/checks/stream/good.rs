//! Streams as they should be: saved, read, written, taken.

use zerocopy::IntoBytes;

use super::{
    CHUNK, MOST, RESUMING, WRITE, ask_write, is_taken, migrating, offer, pre_copying, read_to_end, saved,
};
use crate::client::Client;
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, fail};
use crate::conform::drive::Driven;
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::driver::regs;
use crate::wire::{Command, MigData, MigState};

const READ: Source = Source::Spec("VFIO_USER_MIG_DATA_READ");
const SAVING: Source = Source::Spec("Direct State Transitions");
const STREAM: Source = Source::Uapi("struct vfio_device_feature_mig_state");
const SIZES: Source = Source::Spec("Message sizes");

pub(super) fn checks() -> Vec<Check> {
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
        expect::within(argsz, &ask_read(&mut client, argsz, 64)?)?;
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
