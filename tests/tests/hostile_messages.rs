//! Well-framed messages whose contents make no sense: each gets an errno or the end of its connection, in time, and the server
//! serves the next client.

mod common;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use common::Host;
use common::raw::{Noise, Outcome, command, send};
use vfio_user_check::client::{Client, IrqAction};
use vfio_user_check::vmm::{Interrupts, IrqKind};
use vfio_user_check::wire::{Command, DeviceFeature, Header, IrqSet, RegionAccess, RegionInfo, consts};
use zerocopy::IntoBytes;

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
