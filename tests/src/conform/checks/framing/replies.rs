//! Commands and their replies.

use zerocopy::IntoBytes;

use super::{HEADER, INTERRUPT_LINE, get_info, get_info_bytes, line_is_kept, write_line};
use crate::client::Deadline;
use crate::conform::ask::Ask;
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::expect;
use crate::conform::probe::Probe;
use crate::wire::{Command, DeviceFeature, DeviceInfo, Header, RegionAccess, consts};

const CONCURRENCY: Source = Source::Spec("Command Concurrency");

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
    ]
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
