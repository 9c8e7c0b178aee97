//! REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.

use std::sync::atomic::{AtomicU64, Ordering};

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, RegionAccess, consts};
use zerocopy::IntoBytes;

use super::{Control, asked, control, put, u32_at, u64_at};
use crate::proxy::{Rule, Verdict, always, done, refusal};

use Command::{RegionRead as Read, RegionWrite as Write, RegionWriteMulti as Multi};

/// Bytes of the structure.
const HEAD: usize = 16;

fn region(message: &Message) -> u32 {
    u32_at(message, 8)
}

fn count(message: &Message) -> u32 {
    u32_at(message, 12)
}

/// A read that was not made, with as many zeros as were asked for.
fn zeros(request: &Message) -> Vec<u8> {
    let mut payload = request.payload[..HEAD].to_vec();
    payload.resize(HEAD + (count(request) as usize).min(4096), 0);
    payload
}

/// The head of an access, as the reply to a write.
fn head(request: &Message) -> Vec<u8> {
    request.payload[..HEAD].to_vec()
}

pub(super) fn controls() -> Vec<Control> {
    vec![
        control("access/a-read-has-what-was-asked-for", || {
            Rule::edits(Read, asked, |_, reply| put(reply, 0, &[0xff]))
        }),
        control("access/config-space-is-read-in-any-width", || {
            Rule::edits(
                Read,
                |m| asked(m) && u64_at(m, 0) == 2,
                |_, reply| reply.payload[HEAD] ^= 1,
            )
        }),
        control("access/a-write-is-acknowledged-and-done", || {
            Rule::pretends(Write, asked, head)
        }),
        control("access/unknown-regions-are-refused", || {
            Rule::pretends(Read, |m| region(m) > 8, zeros)
        }),
        control("access/regions-are-not-left", || {
            Rule::grants(Read, |m| region(m) == 0, zeros)
        }),
        control("access/empty-regions-are-refused", || {
            Rule::grants(Read, |m| region(m) == 1, zeros)
        }),
        control("access/flags-of-a-region-are-kept-to", || {
            Rule::grants(Write, asked, head)
        }),
        control("access/transfers-have-a-limit", || {
            Rule::pretends(Read, |m| count(m) > 1 << 20, zeros)
        }),
        control("access/a-write-without-its-data-is-refused", || {
            Rule::pretends(Write, |m| (m.payload.len() - HEAD) < count(m) as usize, head)
        }),
        control("access/several-writes-are-done-in-order", || {
            Rule::pretends(Multi, |m| u64_at(m, 0) == 3, |_| 2_u64.to_le_bytes().to_vec())
        })
        .on(coalesces),
        control("access/several-writes-are-all-there", || {
            Rule::pretends(Multi, |m| u64_at(m, 0) == 2, |_| 2_u64.to_le_bytes().to_vec())
        })
        .on(coalesces),
    ]
}

/// A server that carries out REGION_WRITE_MULTI: of each message the last write, which is all that a check looks at.
fn coalesces() -> Vec<Rule> {
    vec![
        Rule::edits(Command::Version, always, |_, reply| {
            let end = reply.payload.len() - 1;
            let mut document: serde_json::Value =
                serde_json::from_slice(&reply.payload[4..end]).expect("the server's document");
            document["capabilities"]["write_multiple"] = true.into();
            reply.payload.truncate(4);
            reply.payload.extend(document.to_string().as_bytes());
            reply.payload.push(0);
        }),
        takes_the_last(),
    ]
}

/// Bytes of one of several writes.
const ENTRY: usize = 24;

fn takes_the_last() -> Rule {
    let line = AtomicU64::new(0);
    Rule::Request(Box::new(move |message| {
        if message.header.command == Write as u16 || message.header.command == Read as u16 {
            return read_back(message, line.load(Ordering::Relaxed));
        }
        if message.header.command != Multi as u16 {
            return Verdict::Forward;
        }
        let entries: Vec<&[u8]> = message.payload[8..].chunks_exact(ENTRY).collect();
        let too_long = entries.iter().any(|entry| entry[12] > 8);
        if u64_at(message, 0) != entries.len() as u64 || too_long {
            return Verdict::Answer(refusal(message, consts::EINVAL));
        }
        let last = entries.last().map_or(0, |entry| entry[16]);
        line.store(u64::from(last) | 1 << 32, Ordering::Relaxed);
        Verdict::Answer(done(message, message.payload[..8].to_vec()))
    }))
}

/// The byte that was written by several writes, where there were any.
fn read_back(message: &Message, line: u64) -> Verdict {
    let access = RegionAccess {
        offset: u64_at(message, 0),
        region: region(message),
        count: count(message),
    };
    let is_line = access.offset == 0x3c && access.region == consts::REGION_CONFIG && access.count == 1;
    if line == 0 || !is_line {
        return Verdict::Forward;
    }
    Verdict::Answer(done(message, [access.as_bytes(), &[line as u8]].concat()))
}
