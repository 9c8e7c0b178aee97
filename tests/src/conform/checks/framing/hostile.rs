//! What is no proper message: it is not carried out, and it is survived.

use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::IntoBytes;

use super::{HEADER, INTERRUPT_LINE, get_info, get_info_bytes, line_is_kept, write_line};
use crate::conform::ask::{Answer, Ask, parsed};
use crate::conform::check::{Check, Checked, Source, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::vmm::{Backing, memory_file};
use crate::wire::{Command, DeviceInfo, Header, consts};

const COMMANDS: Source = Source::Spec("Commands");
const SECURITY: Source = Source::Spec("Security Considerations");

pub(super) fn checks() -> Vec<Check> {
    vec![
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
            "framing/long-payloads-are-survived",
            SECURITY,
            "A payload that is much longer than the command's structure gets a reply or the end of the connection.",
            long_payloads,
        ),
        Check::new(
            "framing/noise-is-survived",
            SECURITY,
            "A few hundred well-framed messages with senseless contents each get a reply or the end of the connection.",
            noise,
        ),
    ]
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
    for count in [1, most, most.saturating_add(1), consts::SCM_MAX_FD] {
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

fn long_payloads(probe: &Probe<'_>) -> Checked {
    let mut client = probe.ready()?;
    for command in Command::ALL {
        for byte in [0, 0xff] {
            if let Answer::Closed = client.ask(command, &[byte; 4096])? {
                drop(client);
                client = probe.ready()?;
            }
        }
    }
    drop(client);
    probe.next_is_served()
}
