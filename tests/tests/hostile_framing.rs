//! Framing and the handshake: messages that are too long, too short, never end or come out of order. Each gets an errno or the
//! end of its connection, in time, and the server serves the next client.

mod common;

use std::time::Duration;

use common::Host;
use common::raw::{Outcome, PATIENCE, reaction, send};
use vfio_user_check::client::{Client, Connection, Deadline, Error};
use vfio_user_check::wire::{Command, Header, VersionHeader, consts};
use zerocopy::IntoBytes;

fn connection(host: &Host) -> Connection {
    drop(host.client());
    Connection::connect(host.socket(), Deadline::after(PATIENCE)).expect("it connects")
}

#[test]
fn sizes_below_the_header_s_end_the_connection_or_are_refused() {
    let mut host = Host::start(1);
    for size in [0, 1, 15] {
        let mut client = host.client();
        let header = Header {
            size,
            ..Header::command(1, Command::DeviceGetInfo, 0)
        };
        assert!(
            !matches!(send(&mut client, header, &[], &[]), Outcome::Done),
            "size {size}"
        );
    }
    host.assert_serves();
}

#[test]
fn oversized_messages_are_not_waited_for() {
    let mut host = Host::start(1);
    for size in [8 << 20, 1 << 30, u32::MAX] {
        for which in [
            Command::RegionWrite,
            Command::DeviceFeature,
            Command::MigDataWrite,
            Command::DeviceReset,
        ] {
            let mut client = host.client();
            let header = Header {
                size,
                ..Header::command(1, which, 0)
            };
            assert!(
                !matches!(send(&mut client, header, &[0; 64], &[]), Outcome::Done),
                "{which:?}, size {size}"
            );
        }
    }
    host.assert_serves();
}

#[test]
fn a_message_that_never_ends_does_not_hold_the_device() {
    let cuts = [1, 8, 15, 16, 20];
    let mut host = Host::start(cuts.len());
    let whole = [
        Header::command(1, Command::DeviceGetInfo, 16).as_bytes(),
        &[0; 16],
    ]
    .concat();
    // One device each, so that the server's deadlines pass at the same time.
    let mut clients = Vec::new();
    for (socket, sent) in host.sockets().iter().zip(cuts) {
        let mut client = Client::connect(socket).expect("it connects");
        client
            .connection()
            .send_raw(&whole[..sent], &[], Deadline::after(PATIENCE))
            .expect("it is sent");
        clients.push((client, sent));
    }
    for (mut client, sent) in clients {
        assert!(
            matches!(reaction(client.connection()), Outcome::Closed),
            "{sent} bytes of a message"
        );
    }
    host.assert_serves();
}

#[test]
fn a_handshake_that_never_ends_does_not_hold_the_device() {
    let mut host = Host::start(1);
    let mut silent = connection(&host);
    assert!(matches!(
        reaction(&mut silent),
        Outcome::Closed | Outcome::Refused(_)
    ));
    drop(silent);
    host.assert_serves();
}

#[test]
fn a_client_that_closes_after_any_byte_is_survived() {
    let mut host = Host::start(1);
    let whole = [
        Header::command(1, Command::DeviceFeature, 24).as_bytes(),
        &[0; 24],
    ]
    .concat();
    for sent in 0..whole.len() {
        let mut client = host.client();
        client
            .connection()
            .send_raw(&whole[..sent], &[], Deadline::after(PATIENCE))
            .expect("it is sent");
    }
    for sent in 0..20 {
        let mut connection = connection(&host);
        let hello = Header::command(1, Command::Version, 4);
        let bytes = [hello.as_bytes(), VersionHeader::default().as_bytes()].concat();
        connection
            .send_raw(&bytes[..sent], &[], Deadline::after(PATIENCE))
            .expect("it is sent");
    }
    host.assert_serves();
}

#[test]
fn replies_and_unknown_types_instead_of_commands_are_not_obeyed() {
    let mut host = Host::start(1);
    for flags in [1, 2, 15, consts::FLAG_ERROR | 1] {
        let mut client = host.client();
        let header = Header {
            flags,
            ..Header::command(1, Command::DeviceReset, 0)
        };
        assert!(
            !matches!(send(&mut client, header, &[], &[]), Outcome::Done),
            "flags {flags:#x}"
        );
    }
    host.assert_serves();
}

#[test]
fn a_command_that_wants_no_reply_gets_none() {
    let host = Host::start(1);
    let mut client = host.client();
    let header = Header {
        flags: consts::FLAG_NO_REPLY,
        ..Header::command(900, Command::DeviceReset, 0)
    };
    client
        .connection()
        .send_raw(header.as_bytes(), &[], Deadline::after(PATIENCE))
        .expect("it is sent");
    client
        .device_info()
        .expect("the next reply is the next command's");
}

#[test]
fn handshakes_that_make_no_sense_are_refused() {
    let mut host = Host::start(1);
    let deep = format!("{{\"capabilities\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let documents: [&[u8]; 9] = [
        b"",
        b"\0",
        b"{",
        b"[]\0",
        b"{\"capabilities\":7}\0",
        b"{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        b"{\"capabilities\":{\"max_data_xfer_size\":18446744073709551615}}\0",
        b"{\"capabilities\":{}}",
        deep.as_bytes(),
    ];
    for document in documents {
        let mut connection = connection(&host);
        let version = VersionHeader { major: 0, minor: 1 };
        let header = Header::command(1, Command::Version, 4 + document.len());
        let bytes = [header.as_bytes(), version.as_bytes(), document].concat();
        connection
            .send_raw(&bytes, &[], Deadline::after(PATIENCE))
            .expect("it is sent");
        reaction(&mut connection);
    }
    for version in [
        VersionHeader { major: 1, minor: 0 },
        VersionHeader {
            major: u16::MAX,
            minor: u16::MAX,
        },
    ] {
        let mut connection = connection(&host);
        let bytes = [
            Header::command(1, Command::Version, 4).as_bytes(),
            version.as_bytes(),
        ]
        .concat();
        connection
            .send_raw(&bytes, &[], Deadline::after(PATIENCE))
            .expect("it is sent");
        assert!(!matches!(reaction(&mut connection), Outcome::Done), "{version:?}");
    }
    host.assert_serves();
}

#[test]
fn a_command_before_the_handshake_is_refused() {
    let mut host = Host::start(1);
    for which in Command::ALL
        .into_iter()
        .filter(|which| *which != Command::Version)
    {
        let mut connection = connection(&host);
        let header = Header::command(1, which, 0);
        connection
            .send_raw(header.as_bytes(), &[], Deadline::after(PATIENCE))
            .expect("it is sent");
        assert!(!matches!(reaction(&mut connection), Outcome::Done), "{which:?}");
    }
    host.assert_serves();
}

#[test]
fn a_client_that_does_not_read_its_replies_does_not_hold_the_server() {
    let mut host = Host::start(2);
    let mut client = host.client();
    let info = [
        Header::command(1, Command::DeviceGetRegionInfo, 32).as_bytes(),
        &[0; 32],
    ]
    .concat();
    let flood: Vec<u8> = info.repeat(20_000);
    match client
        .connection()
        .send_raw(&flood, &[], Deadline::after(Duration::from_secs(15)))
    {
        Ok(()) | Err(Error::Timeout { .. }) => {}
        Err(error) => assert!(error.is_closed(), "{error}"),
    }
    // The other device is another thread.
    let mut other = Client::connect(&host.sockets()[1]).expect("the other device answers");
    other.device_info().expect("the other device answers");
    drop((client, other));
    host.assert_serves();
}
