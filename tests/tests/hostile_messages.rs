//! Malformed, oversized, truncated and out-of-order messages: each gets an errno or the end of its connection, in time, and the
//! server serves the next client.

mod common;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use common::Host;
use common::raw::{Noise, Outcome, PATIENCE, command, reaction, send};
use vfio_user_check::client::{Client, Connection, Deadline, Error, IrqAction};
use vfio_user_check::vmm::{Interrupts, IrqKind};
use vfio_user_check::wire::{
    Command, DeviceFeature, Header, IrqSet, RegionAccess, RegionInfo, VersionHeader, consts,
};
use zerocopy::IntoBytes;

fn connection(host: &Host) -> Connection {
    drop(host.client());
    Connection::connect(host.socket(), Deadline::after(PATIENCE)).expect("it connects")
}

/// The client again, or another one where the server has closed.
fn reconnected(host: &Host, client: Client, outcome: &Outcome) -> Client {
    if matches!(outcome, Outcome::Closed) {
        drop(client);
        return host.client();
    }
    client
}

#[test]
fn payloads_of_every_short_length_are_survived() {
    let mut host = Host::start(1);
    let mut client = host.client();
    for which in Command::ALL {
        for length in 0..64 {
            for byte in [0x00, 0xff] {
                let outcome = command(&mut client, which, &vec![byte; length], &[]);
                client = reconnected(&host, client, &outcome);
            }
        }
    }
    drop(client);
    host.assert_serves();
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
    let mut host = Host::start(1);
    for sent in [1, 8, 15, 16, 20] {
        let mut client = host.client();
        let whole = [
            Header::command(1, Command::DeviceGetInfo, 16).as_bytes(),
            &[0; 16],
        ]
        .concat();
        client
            .connection()
            .send_raw(&whole[..sent], &[], Deadline::after(PATIENCE))
            .expect("it is sent");
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
fn unknown_commands_are_refused_and_the_connection_goes_on() {
    let host = Host::start(1);
    let mut client = host.client();
    for number in [0, 14, 20, 100, u16::MAX] {
        let header = Header {
            command: number,
            ..Header::command(3, Command::DeviceReset, 0)
        };
        let outcome = send(&mut client, header, &[], &[]);
        assert!(!matches!(outcome, Outcome::Done), "command {number}");
        client = reconnected(&host, client, &outcome);
    }
    client.device_info().expect("the connection goes on");
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
fn noise_is_survived() {
    let mut host = Host::start(1);
    let mut noise = Noise(0x0123_4567_89ab_cdef);
    let mut client = host.client();
    for _ in 0..1500 {
        let which = Command::ALL[(noise.next() % Command::ALL.len() as u64) as usize];
        let length = (noise.next() % 96) as usize;
        let mut payload = noise.bytes(length);
        // Small numbers get further than large ones.
        for byte in &mut payload {
            if noise.next().is_multiple_of(2) {
                *byte &= 0x03;
            }
        }
        let outcome = command(&mut client, which, &payload, &[]);
        client = reconnected(&host, client, &outcome);
    }
    drop(client);
    host.assert_serves();
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
fn regions_are_not_left() {
    let host = Host::start(1);
    let mut client = host.client();
    let mut data = [0; 8];
    for (region, offset) in [
        (0, 0x2000),
        (0, 0x1ffc),
        (0, u64::MAX - 3),
        (7, 256),
        (7, 0x1000),
        (9, 0),
        (u32::MAX, 0),
        (1, 0),
    ] {
        assert!(
            client.region_read(region, offset, &mut data).is_err(),
            "read of region {region} at {offset:#x}"
        );
        assert!(
            client.region_write(region, offset, &data).is_err(),
            "write of region {region} at {offset:#x}"
        );
    }
    for count in [1 << 21, u32::MAX] {
        let access = RegionAccess {
            offset: 0,
            region: 0,
            count,
        };
        for which in [Command::RegionRead, Command::RegionWrite] {
            let outcome = command(&mut client, which, access.as_bytes(), &[]);
            assert!(!matches!(outcome, Outcome::Done), "{which:?} of {count} bytes");
            client = reconnected(&host, client, &outcome);
        }
    }
    client.device_info().expect("the connection goes on");
}

#[test]
fn region_info_keeps_to_the_room_it_is_given() {
    let host = Host::start(1);
    let mut client = host.client();
    for argsz in [0, 1, 31, 32, 33, 40, 63, u32::MAX] {
        for index in [0, 4, 7, 8, 9, u32::MAX] {
            let request = RegionInfo {
                argsz,
                index,
                ..RegionInfo::default()
            };
            let outcome = command(&mut client, Command::DeviceGetRegionInfo, request.as_bytes(), &[]);
            client = reconnected(&host, client, &outcome);
        }
    }
    client.region_info(0).expect("the right question is answered");
}

#[test]
fn features_are_got_and_set_as_they_are_and_not_otherwise() {
    let host = Host::start(1);
    let mut client = host.client();
    let both = consts::FEATURE_GET | consts::FEATURE_SET;
    for index in 0..32 {
        for method in [
            0,
            consts::FEATURE_GET,
            consts::FEATURE_SET,
            both,
            1 << 19,
            u32::MAX << 16,
        ] {
            let request = DeviceFeature {
                argsz: 8,
                flags: index | method,
            };
            let outcome = command(&mut client, Command::DeviceFeature, request.as_bytes(), &[]);
            if method == 0 || method == both {
                assert!(
                    !matches!(outcome, Outcome::Done),
                    "feature {index}, methods {method:#x}"
                );
            }
            client = reconnected(&host, client, &outcome);
        }
    }
    let _ = client.device_reset();
    client.migration_flags().expect("the right question is answered");
}

#[test]
fn interrupts_are_set_within_their_bounds() {
    let host = Host::start(1);
    let mut client = host.client();
    let connect = consts::IRQ_SET_DATA_EVENTFD | consts::IRQ_SET_ACTION_TRIGGER;
    for (flags, index, start, count) in [
        (connect, 9, 0, 1),
        (connect, u32::MAX, 0, 1),
        (connect, consts::IRQ_MSIX, 4, 1),
        (connect, consts::IRQ_MSIX, 0, 5),
        (connect, consts::IRQ_MSIX, u32::MAX, 2),
        (connect, consts::IRQ_MSIX, 2, u32::MAX),
        (connect | consts::IRQ_SET_DATA_BOOL, consts::IRQ_MSIX, 0, 1),
        (connect | consts::IRQ_SET_ACTION_MASK, consts::IRQ_MSIX, 0, 1),
        (
            consts::IRQ_SET_DATA_BOOL | consts::IRQ_SET_ACTION_TRIGGER,
            consts::IRQ_MSIX,
            0,
            4,
        ),
        (0, consts::IRQ_MSIX, 0, 1),
        (u32::MAX, consts::IRQ_MSIX, 0, 1),
    ] {
        let request = IrqSet {
            argsz: 20,
            flags,
            index,
            start,
            count,
        };
        let outcome = command(&mut client, Command::DeviceSetIrqs, request.as_bytes(), &[]);
        assert!(!matches!(outcome, Outcome::Done), "{request:?}");
        client = reconnected(&host, client, &outcome);
    }
    let interrupts = Interrupts::new(IrqKind::Msix, 4).expect("eventfds");
    client
        .set_irqs(consts::IRQ_MSIX, 0, 4, IrqAction::Connect(&interrupts.fds()))
        .expect("the right request works");
    client
        .set_irqs(consts::IRQ_MSIX, 2, 1, IrqAction::Trigger)
        .expect("a client can trigger");
    assert_eq!(interrupts.take(2), 1);
}

#[test]
fn file_descriptors_that_are_no_eventfds_are_refused_or_harmless() {
    let mut host = Host::start(1);
    let mut client = host.client();
    let (pipe, peer) = UnixStream::pair().expect("a pair");
    let file = tempfile::tempfile().expect("a file");
    for fd in [pipe.as_fd(), file.as_fd()] {
        // Taken or not: what it must not do is hang on it.
        let _ = client.set_irqs(consts::IRQ_MSIX, 0, 1, IrqAction::Connect(&[fd]));
        let _ = client.set_irqs(consts::IRQ_MSIX, 0, 1, IrqAction::Trigger);
    }
    drop((client, peer));
    host.assert_serves();
}

#[test]
fn more_file_descriptors_than_allowed_are_not_leaked() {
    let mut host = Host::start(1);
    let file = tempfile::tempfile().expect("a file");
    let fds: Vec<BorrowedFd<'_>> = vec![file.as_fd(); 200];
    let before = open_files(host.server().id());
    for _ in 0..10 {
        for which in [
            Command::DeviceGetInfo,
            Command::DmaMap,
            Command::DeviceSetIrqs,
            Command::RegionRead,
        ] {
            let mut client = host.client();
            command(&mut client, which, &[0; 32], &fds);
        }
    }
    host.assert_serves();
    let id = host.server().id();
    common::eventually("the file descriptors are closed", || open_files(id) <= before + 8);
}

fn open_files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
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
        .send_raw(&flood, &[], Deadline::after(std::time::Duration::from_secs(15)))
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
