//! The stream of saved state.

mod bad;
mod extensions;
mod good;

use zerocopy::IntoBytes;

use crate::client::{Client, Error};
use crate::conform::ask::{Answer, Ask};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::wire::{Command, MigData, MigState, consts};

const WRITE: Source = Source::Spec("VFIO_USER_MIG_DATA_WRITE");
const RESUMING: Source = Source::Spec("Direct State Transitions: RESUMING -> STOP");

/// Most bytes of a stream: one that never ends is at fault.
const MOST: usize = 256 << 20;

/// Most reads of a stream.
const MOST_READS: usize = 1 << 16;

/// Bytes of a message where it does not matter.
const CHUNK: u32 = 1 << 16;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = good::checks();
    checks.extend(bad::checks());
    checks.extend(extensions::checks());
    checks
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
    for _ in 0..MOST_READS {
        let data = client.mig_data_read(chunk)?;
        if data.is_empty() {
            return Ok(stream);
        }
        stream.extend_from_slice(&data);
        expect::that(stream.len() <= MOST, || {
            format!("the stream has more than {MOST} bytes")
        })?;
    }
    fail(format!("the stream does not end in {MOST_READS} reads"))
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

fn ask_write(client: &mut Client, size: u32, data: &[u8]) -> Checked<Answer> {
    let argsz = (size_of::<MigData>() + data.len()) as u32;
    let payload = [MigData { argsz, size }.as_bytes(), data].concat();
    client.ask(Command::MigDataWrite, &payload)
}
