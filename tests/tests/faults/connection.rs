//! The handshake, messages as such, DEVICE_GET_INFO, reset and disconnect.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, DeviceInfo, consts};
use vm_memory::{FileOffset, MmapRegion};
use zerocopy::IntoBytes;

use super::{Control, asked, control, control_of, nothing, put, u32_at};
use crate::proxy::{Framing, Rule, Stage, Verdict, always, done, refusal};

pub(super) fn controls() -> Vec<Control> {
    [version(), framing(), device(), reset(), disconnect()]
        .into_iter()
        .flatten()
        .collect()
}

/// Whether a proposal is the check's and not the client's, which names its extensions.
fn proposed(message: &Message) -> bool {
    !contains(message, b"mig_data_size")
}

fn contains(message: &Message, text: &[u8]) -> bool {
    message.payload.windows(text.len()).any(|window| window == text)
}

/// Whether a proposal's document is this.
fn is_document(message: &Message, text: &[u8]) -> bool {
    message.payload.get(4..) == Some(&[text, &[0]].concat())
}

/// A reply to VERSION with this document.
fn version_reply(document: &str) -> Vec<u8> {
    [&[0, 0, 1, 0], document.as_bytes(), &[0]].concat()
}

fn version() -> Vec<Control> {
    use Command::Version;
    vec![
        control("version/a-proposal-is-answered-in-kind", || {
            Rule::edits(Version, proposed, |_, reply| put(reply, 0, &[1]))
        }),
        control("version/an-older-minor-version-is-kept-to", || {
            Rule::edits(Version, proposed, |_, reply| put(reply, 2, &[1]))
        }),
        control("version/a-newer-minor-version-is-met-halfway", || {
            Rule::refuses(Version, |m| m.payload[2..4] == [0xff, 0xff], consts::EINVAL)
        }),
        control("version/an-unknown-major-version-is-not-accepted", || {
            Rule::pretends(Version, |m| m.payload[0] != 0, |m| m.payload[..4].to_vec())
        }),
        control("version/data-are-optional", || {
            Rule::refuses(Version, |m| m.payload.len() == 4, consts::EINVAL)
        }),
        control("version/capabilities-are-optional", || {
            Rule::refuses(Version, |m| is_document(m, b"{}"), consts::EINVAL)
        }),
        control("version/the-reply-is-a-document", || {
            Rule::edits(Version, proposed, |_, reply| {
                reply.payload = version_reply("{\"a\":");
            })
        }),
        control("version/unknown-capabilities-are-ignored", || {
            Rule::edits(
                Version,
                |m| contains(m, b"x_of_another_age"),
                |request, reply| {
                    reply.payload.clone_from(&request.payload);
                },
            )
        }),
        control("version/capabilities-are-among-those-proposed", || {
            Rule::edits(
                Version,
                |m| is_document(m, br#"{"capabilities":{}}"#),
                |_, reply| {
                    reply.payload = version_reply(r#"{"capabilities":{"max_msg_fds":8}}"#);
                },
            )
        }),
        control("version/a-separate-channel-is-offered-to-who-asked", || {
            Rule::edits(
                Version,
                |m| contains(m, b"twin_socket"),
                |_, reply| {
                    let document = r#"{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}"#;
                    reply.payload = version_reply(document);
                },
            )
        }),
        control("version/malformed-data-are-not-accepted", || {
            Rule::pretends(Version, |m| is_document(m, b"nonsense"), |_| version_reply("{}"))
        }),
        control("version/wrong-types-are-survived", || {
            Rule::swallows(Version, |m| is_document(m, b"[]"))
        }),
        control("version/a-short-proposal-is-not-accepted", || {
            Rule::pretends(Version, |m| m.payload.len() < 4, |_| version_reply("{}"))
        }),
        control("version/nothing-is-answered-before-it", || {
            Rule::pretends(Command::DeviceGetInfo, |m| m.header.id == 1, info)
        }),
    ]
}

fn info(_: &Message) -> Vec<u8> {
    let info = DeviceInfo {
        argsz: 16,
        flags: consts::DEVICE_FLAGS_PCI | consts::DEVICE_FLAGS_RESET,
        num_regions: 9,
        num_irqs: 5,
    };
    info.as_bytes().to_vec()
}

/// Takes a message of this type for a command.
fn takes_for_a_command(kind: u32) -> Rule {
    Rule::Request(Box::new(move |message| {
        if message.header.flags & consts::FLAG_TYPE_MASK == kind {
            message.header.flags = consts::FLAG_TYPE_COMMAND;
        }
        Verdict::Forward
    }))
}

/// Answers what is asked for without a reply.
fn answers_anyway() -> Rule {
    Rule::changes(
        Command::RegionWrite,
        |m| m.header.flags & consts::FLAG_NO_REPLY != 0,
        |m| m.header.flags &= !consts::FLAG_NO_REPLY,
    )
}

fn framing() -> Vec<Control> {
    use Command::DeviceGetInfo;
    vec![
        control("framing/a-reply-echoes-id-and-command", || {
            Rule::edits(
                DeviceGetInfo,
                |m| m.header.id == 0x1234,
                |_, reply| reply.header.id = 1,
            )
        }),
        control("framing/ids-belong-to-the-client", || {
            Rule::refuses(DeviceGetInfo, |m| m.header.id == 9, consts::EEXIST)
        }),
        control("framing/commands-are-answered-in-order", || {
            Rule::edits(
                DeviceGetInfo,
                |m| matches!(m.header.id, 3 | 77),
                |request, reply| {
                    reply.header.id = 80 - request.header.id;
                },
            )
        }),
        control("framing/a-message-may-come-in-pieces", || {
            Rule::closes(DeviceGetInfo, |m| m.header.id == 21)
        }),
        control("framing/no-reply-means-none", answers_anyway),
        control("framing/no-reply-means-no-error-either", answers_anyway),
        control("framing/an-error-reply-is-a-header", || {
            Rule::edits_at(Stage::Refused, Command::DeviceFeature, always, |_, reply| {
                reply.payload = vec![0; 8];
            })
        }),
        control("framing/unknown-commands-are-refused", || {
            Rule::Request(Box::new(|message| match message.header.command {
                14 => Verdict::Answer(done(message, Vec::new())),
                _ => Verdict::Forward,
            }))
        }),
        control("framing/commands-of-the-server-are-refused", || {
            Rule::pretends(Command::DmaWrite, always, |_| vec![0; 16])
        }),
        control("framing/unasked-replies-are-not-carried-out", || {
            takes_for_a_command(1)
        }),
        control("framing/unknown-types-are-not-carried-out", || {
            takes_for_a_command(7)
        }),
        control("framing/impossible-sizes-are-survived", || {
            Rule::Framing(Framing::Answered)
        }),
        control("framing/a-connection-may-end-in-mid-message", || Rule::Clients(2)),
        control("framing/unneeded-file-descriptors-are-survived", || {
            Rule::swallows(DeviceGetInfo, |m| m.fds.len() > 1)
        }),
        control("framing/short-payloads-are-refused", || {
            Rule::pretends(Command::DmaMap, |m| m.payload.len() < 32, nothing)
        }),
        control("framing/long-payloads-are-survived", || {
            Rule::swallows(Command::DmaUnmap, |m| m.payload.len() == 4096)
        }),
        control("framing/noise-is-survived", || {
            Rule::swallows(Command::MigDataWrite, asked)
        }),
    ]
}

fn device() -> Vec<Control> {
    use Command::DeviceGetInfo;
    vec![
        control("device/info-is-whole", || {
            Rule::edits(DeviceGetInfo, asked, |_, reply| reply.payload.extend([0; 4]))
        }),
        control("device/it-is-a-pci-device", || {
            Rule::edits(DeviceGetInfo, asked, |_, reply| put(reply, 4, &[1]))
        }),
        control("device/it-has-the-regions-of-pci", || {
            Rule::edits(DeviceGetInfo, asked, |_, reply| put(reply, 8, &[8]))
        }),
        control("device/more-room-changes-nothing", || {
            Rule::edits(DeviceGetInfo, asked, |request, reply| {
                put(reply, 0, &request.payload[..4]);
            })
        }),
        control("device/less-room-is-kept-to", || {
            Rule::pretends(DeviceGetInfo, |m| asked(m) && u32_at(m, 0) < 16, info)
        }),
    ]
}

fn reset() -> Vec<Control> {
    use Command::DeviceReset;
    vec![
        control("reset/it-is-answered", || {
            Rule::refuses(DeviceReset, asked, consts::EIO)
        }),
        control("reset/it-ends-in-running", || {
            Rule::pretends(DeviceReset, asked, nothing)
        }),
        control("reset/it-keeps-mappings", || {
            Rule::grants(Command::DmaMap, always, nothing)
        }),
        control("reset/it-is-refused-where-it-is-not-announced", || {
            Rule::pretends(DeviceReset, asked, nothing)
        })
        .on(|| {
            vec![
                Rule::refuses(DeviceReset, always, consts::ENOTSUP),
                Rule::edits(Command::DeviceGetInfo, always, |_, reply| put(reply, 4, &[2])),
            ]
        }),
    ]
}

/// Takes one mapping, and forgets none of those who have gone.
fn maps_once() -> Rule {
    let maps = AtomicUsize::new(0);
    Rule::Request(Box::new(move |message| {
        let is_map = message.header.command == Command::DmaMap as u16;
        if is_map && maps.fetch_add(1, Ordering::Relaxed) > 0 {
            return Verdict::Answer(refusal(message, consts::EEXIST));
        }
        Verdict::Forward
    }))
}

/// Maps memory for itself, and keeps it when its client goes.
fn keeps_memory() -> Rule {
    let kept = Mutex::new(Vec::new());
    Rule::Request(Box::new(move |message| {
        if message.header.command == Command::DmaMap as u16
            && let Some(fd) = message.fds.first()
        {
            let file = File::from(fd.as_fd().try_clone_to_owned().expect("a copy"));
            let region = MmapRegion::<()>::from_file(FileOffset::new(file, 0), 4096).expect("a mapping");
            kept.lock().expect("nobody has panicked").push(region);
        }
        Verdict::Forward
    }))
}

fn disconnect() -> Vec<Control> {
    vec![
        control("disconnect/the-next-client-is-served", || Rule::Clients(3)),
        control("disconnect/mappings-end", maps_once),
        control("disconnect/memory-is-let-go", keeps_memory),
        control_of("dma/an-unmap-lets-go-of-the-memory", || vec![keeps_memory()]),
    ]
}
