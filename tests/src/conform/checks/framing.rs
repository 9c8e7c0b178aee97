//! Messages as such: headers, replies, order.

use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::IntoBytes;

use crate::client::{Client, Deadline};
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::vmm::{Backing, memory_file};
use crate::wire::{Command, DeviceFeature, DeviceInfo, Header, RegionAccess, consts};

const HEADER: Source = Source::Spec("Header");
const COMMANDS: Source = Source::Spec("Commands");
const CONCURRENCY: Source = Source::Spec("Command Concurrency");
const SECURITY: Source = Source::Spec("Security Considerations");

/// Config space: the interrupt line, a byte that the device keeps and does not use.
const INTERRUPT_LINE: u64 = 0x3c;

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "framing/a-reply-echoes-id-and-command",
            HEADER,
            "A reply has the type of a reply, the id and the command of its request, and no error bit when it is none.",
            echo,
        ),
        Check::new(
            "framing/ids-belong-to-the-client",
            HEADER,
            "Ids can be used again, also by commands that are under way at the same time.",
            same_id,
        ),
        Check::new(
            "framing/commands-are-answered-in-order",
            CONCURRENCY,
            "Commands that are sent without waiting are processed in the order in which they came.",
            in_order,
        ),
        Check::new(
            "framing/a-message-may-come-in-pieces",
            Source::Spec("Socket"),
            "A message is the bytes that its header says, in however many pieces the stream hands them over.",
            in_pieces,
        ),
        Check::new(
            "framing/no-reply-means-none",
            HEADER,
            "A command with No_reply is carried out before the next one and not answered.",
            no_reply,
        ),
        Check::new(
            "framing/no-reply-means-no-error-either",
            HEADER,
            "A command with No_reply that is refused is not answered.",
            no_reply_to_an_error,
        ),
        Check::new(
            "framing/an-error-reply-is-a-header",
            HEADER,
            "If an error occurs the reply consists of the header alone.",
            error_is_a_header,
        ),
        Check::new(
            "framing/unknown-commands-are-refused",
            COMMANDS,
            "A command that does not exist is not answered as if it had been carried out.",
            unknown_commands,
        ),
        Check::new(
            "framing/commands-of-the-server-are-refused",
            COMMANDS,
            "DMA_READ and DMA_WRITE go from the server to the client only.",
            commands_of_the_server,
        ),
        Check::new(
            "framing/unasked-replies-are-not-carried-out",
            HEADER,
            "A reply to nothing is no command: it is not carried out, and the server goes on or closes.",
            unasked_reply,
        ),
        Check::new(
            "framing/unknown-types-are-not-carried-out",
            HEADER,
            "A message that is neither command nor reply is not carried out.",
            unknown_type,
        ),
        Check::new(
            "framing/impossible-sizes-are-survived",
            SECURITY,
            "A header with a size below its own or beyond all bounds ends the connection, or is refused; nothing that \
             follows is taken for a command, and the next client is served.",
            impossible_sizes,
        ),
        Check::new(
            "framing/a-connection-may-end-in-mid-message",
            SECURITY,
            "A client that goes away in the middle of a header or a payload leaves a server that serves the next.",
            ends_in_mid_message,
        ),
        Check::new(
            "framing/unneeded-file-descriptors-are-survived",
            SECURITY,
            "File descriptors with a message that takes none, and more than were agreed on, are survived.",
            unneeded_fds,
        ),
        Check::new(
            "framing/short-payloads-are-refused",
            COMMANDS,
            "A payload that is shorter than the command's structure is refused.",
            short_payloads,
        ),
        Check::new(
            "framing/noise-is-survived",
            SECURITY,
            "A few hundred well-framed messages with senseless contents each get a reply or the end of the connection.",
            noise,
        ),
    ]
}

fn get_info() -> DeviceInfo {
    DeviceInfo {
        argsz: size_of::<DeviceInfo>() as u32,
        ..DeviceInfo::default()
    }
}

/// A GET_INFO as bytes.
fn get_info_bytes(id: u16) -> Vec<u8> {
    let header = Header::command(id, Command::DeviceGetInfo, size_of::<DeviceInfo>());
    [header.as_bytes(), get_info().as_bytes()].concat()
}

fn echo(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for id in [0, 1, 0x1234, u16::MAX] {
        let header = Header::command(id, Command::DeviceGetInfo, size_of::<DeviceInfo>());
        let reply = client
            .ask_raw(header, get_info().as_bytes(), &[])?
            .done("GET_INFO")?;
        expect::number("the reply's flags", reply.header.flags, consts::FLAG_TYPE_REPLY)?;
        let size = consts::HEADER_SIZE + reply.payload.len();
        expect::number("the reply's size", reply.header.size, size as u64)?;
    }
    Ok(())
}

fn same_id(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    client.send_bytes(&get_info_bytes(9).repeat(5))?;
    for _ in 0..5 {
        let reply = client.answer()?.done("one of five GET_INFO with the same id")?;
        expect::number("the reply's id", reply.header.id, 9_u64)?;
    }
    Ok(())
}

fn in_order(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let ids = [500, 3, 77, 4, 0xffff, 0];
    let bytes: Vec<u8> = ids.into_iter().flat_map(get_info_bytes).collect();
    client.send_bytes(&bytes)?;
    for id in ids {
        let reply = client.answer()?.done("one of six GET_INFO at once")?;
        expect::number("the next reply's id", reply.header.id, id)?;
    }
    Ok(())
}

fn in_pieces(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let message = get_info_bytes(21);
    for pieces in [
        vec![16, 32],
        vec![8, 32],
        vec![1, 15, 17, 32],
        vec![20, 32],
        (1..=32).collect(),
    ] {
        let mut start = 0;
        for end in &pieces {
            client.send_bytes(&message[start..*end])?;
            start = *end;
            // The server has to see the pieces apart. One that does not is no fault of anybody: nothing is judged by it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let reply = client
            .answer()?
            .done(&format!("GET_INFO in pieces that end at {pieces:?}"))?;
        expect::number("the reply's id", reply.header.id, 21_u64)?;
    }
    Ok(())
}

/// A write of config space's interrupt line, as bytes.
fn write_line(id: u16, value: u8, region: u32, flags: u32) -> Vec<u8> {
    let access = RegionAccess {
        offset: INTERRUPT_LINE,
        region,
        count: 1,
    };
    let mut header = Header::command(id, Command::RegionWrite, size_of::<RegionAccess>() + 1);
    header.flags |= flags;
    [header.as_bytes(), access.as_bytes(), &[value]].concat()
}

fn no_reply(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for value in [0x5a, 0xa5] {
        client.send_bytes(&write_line(
            30,
            value,
            consts::REGION_CONFIG,
            consts::FLAG_NO_REPLY,
        ))?;
        let mut line = [0];
        match client.region_read(consts::REGION_CONFIG, INTERRUPT_LINE, &mut line) {
            Ok(()) => {}
            Err(error) => return fail(format!("the read after a write with No_reply: {error}")),
        }
        if line != [value] && !line_is_kept(&mut client)? {
            return skip("the device does not keep config space's interrupt line");
        }
        expect::number(
            "the byte written with No_reply before it was read",
            line[0],
            value,
        )?;
    }
    Ok(())
}

/// Whether a plain write to the interrupt line is read back.
fn line_is_kept(client: &mut Client) -> Checked<bool> {
    let mut line = [0];
    client.region_write(consts::REGION_CONFIG, INTERRUPT_LINE, &[0x3c])?;
    client.region_read(consts::REGION_CONFIG, INTERRUPT_LINE, &mut line)?;
    Ok(line == [0x3c])
}

fn no_reply_to_an_error(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    client.send_bytes(&write_line(31, 0, u32::MAX, consts::FLAG_NO_REPLY))?;
    client.send_bytes(&get_info_bytes(32))?;
    let reply = client
        .answer()?
        .done("the command after a refused one with No_reply")?;
    expect::number("the id of the first reply", reply.header.id, 32_u64)
}

fn error_is_a_header(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let access = RegionAccess {
        offset: 0,
        region: u32::MAX,
        count: 4,
    };
    let feature = DeviceFeature {
        argsz: 64,
        flags: 0xfff0 | consts::FEATURE_GET,
    };
    for (command, payload) in [
        (Command::RegionRead, access.as_bytes()),
        (Command::DeviceFeature, feature.as_bytes()),
        (Command::DmaUnmap, &[0xff; 24]),
    ] {
        let header = Header::command(40, command, payload.len());
        client.send_bytes(&[header.as_bytes(), payload].concat())?;
        let deadline = Deadline::after(probe.timeout());
        let reply = client.connection().receive_raw(deadline)?;
        expect::that(reply.header.is_error(), || {
            format!("{command:?} of nonsense was carried out")
        })?;
        expect::that(reply.payload.is_empty(), || {
            format!(
                "the error reply to {command:?} has {} bytes after its header",
                reply.payload.len()
            )
        })?;
    }
    Ok(())
}

fn unknown_commands(probe: &Probe<'_>) -> Checked {
    for number in [0, 14, 100, 0x7fff, u16::MAX] {
        let mut client = probe.ready()?;
        let header = Header {
            command: number,
            ..Header::command(50, Command::DeviceReset, 0)
        };
        client
            .ask_raw(header, &[], &[])?
            .refused_or_closed(&format!("command {number}"))?;
    }
    Ok(())
}

fn commands_of_the_server(probe: &Probe<'_>) -> Checked {
    for command in [Command::DmaRead, Command::DmaWrite] {
        let mut client = probe.ready()?;
        let answer = client.ask(command, &[0; 24])?;
        answer.refused_or_closed(&format!("{command:?} from the client"))?;
    }
    Ok(())
}

/// Sends a write that is no command, and looks what became of it.
fn not_carried_out(probe: &Probe<'_>, kind: u32, what: &str) -> Checked {
    let mut client = probe.ready()?;
    if !line_is_kept(&mut client)? {
        return skip("the device does not keep config space's interrupt line");
    }
    client.send_bytes(&write_line(60, 0x77, consts::REGION_CONFIG, kind))?;
    client.send_bytes(&get_info_bytes(61))?;
    match client.answer()? {
        // A refusal is of the one or of the other; either way nothing was carried out.
        Answer::Closed | Answer::Refused(_) => return Ok(()),
        Answer::Done(reply) => expect::number(
            &format!("the id of the first reply after {what}"),
            reply.header.id,
            61_u64,
        )?,
    }
    let mut line = [0];
    client.region_read(consts::REGION_CONFIG, INTERRUPT_LINE, &mut line)?;
    expect::number(
        &format!("the byte that {what} must not have written"),
        line[0],
        0x3c_u64,
    )
}

fn unasked_reply(probe: &Probe<'_>) -> Checked {
    not_carried_out(probe, consts::FLAG_TYPE_REPLY, "a reply to nothing")
}

fn unknown_type(probe: &Probe<'_>) -> Checked {
    for kind in [0x2, 0x7, 0xf] {
        not_carried_out(probe, kind, &format!("a message of type {kind}"))?;
    }
    Ok(())
}

fn impossible_sizes(probe: &Probe<'_>) -> Checked {
    for size in [0, 1, 15, 1 << 30, u32::MAX] {
        let mut client = probe.ready()?;
        let header = Header {
            size,
            ..Header::command(70, Command::DeviceGetInfo, 0)
        };
        // What follows looks like a command, and is the rest of a message without an end.
        client.send_bytes(&[header.as_bytes(), &write_line(71, 0x11, consts::REGION_CONFIG, 0)].concat())?;
        if size >= 1 << 30 {
            // A server may wait for the rest of what it was promised.
            drop(client);
        } else {
            client
                .answer()?
                .refused_or_closed(&format!("a message of {size} bytes"))?;
        }
        probe.next_is_served()?;
    }
    Ok(())
}

fn ends_in_mid_message(probe: &Probe<'_>) -> Checked {
    let message = get_info_bytes(80);
    for length in [1, 8, 15, 16, 17, 31] {
        let mut client = probe.ready()?;
        client.send_bytes(&message[..length])?;
        drop(client);
        probe.next_is_served()?;
    }
    Ok(())
}

fn unneeded_fds(probe: &Probe<'_>) -> Checked {
    let file = memory_file(4096, Backing::Sealed)?;
    let most = probe.ready()?.capabilities().max_msg_fds();
    for count in [1, most, most + 1, consts::SCM_MAX_FD] {
        let mut client = probe.ready()?;
        let fds: Vec<BorrowedFd<'_>> = vec![file.as_fd(); count.min(consts::SCM_MAX_FD)];
        client.ask_with(Command::DeviceGetInfo, get_info().as_bytes(), &fds)?;
        drop(client);
        probe.next_is_served()?;
    }
    Ok(())
}

fn short_payloads(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    let structures = [
        (Command::DmaMap, 32),
        (Command::DmaUnmap, 24),
        (Command::DeviceGetInfo, 16),
        (Command::DeviceGetRegionInfo, 32),
        (Command::DeviceGetRegionIoFds, 16),
        (Command::DeviceGetIrqInfo, 16),
        (Command::DeviceSetIrqs, 20),
        (Command::RegionRead, 16),
        (Command::RegionWrite, 16),
        (Command::DeviceFeature, 8),
        (Command::MigDataRead, 8),
        (Command::MigDataWrite, 8),
    ];
    for (command, size) in structures {
        for length in [0, 1, size / 2, size - 1] {
            client
                .ask(command, &vec![0; length])?
                .refused(&format!("{command:?} with {length} bytes of {size}"))?;
        }
    }
    Ok(())
}

/// Bytes that look random and are the same in every run.
fn noise_from(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn noise(probe: &Probe<'_>) -> Checked {
    let mut seed = 0x0123_4567_89ab_cdef;
    let mut client = probe.ready()?;
    for _ in 0..400 {
        let command = Command::ALL[(noise_from(&mut seed) % Command::ALL.len() as u64) as usize];
        let length = noise_from(&mut seed) % 96;
        // Small numbers get further than large ones.
        let byte = |value: u64| {
            if value & 1 == 0 {
                (value >> 8) as u8
            } else {
                (value >> 8) as u8 & 3
            }
        };
        let payload: Vec<u8> = (0..length).map(|_| byte(noise_from(&mut seed))).collect();
        if matches!(client.ask(command, &payload)?, Answer::Closed) {
            drop(client);
            client = probe.ready()?;
        }
    }
    let reply = client
        .ask(Command::DeviceGetInfo, get_info().as_bytes())?
        .done("GET_INFO after it")?;
    parsed::<DeviceInfo>(&reply).map(drop)
}
