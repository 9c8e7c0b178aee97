//! What a connection leaves behind for the VM's other devices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagetrail_tracker::{
    Candidate, Capabilities, DeviceKind, DirtyTracker, Ioas, Iova, IovaRange, PageSize, PageSizes,
    PeekSupport, RangeControl, RangeUpdate, ReportBitmap, SoftwareTracker, TrackerError, TrackerKind,
    WithoutTracker,
};
use rustix::io::Errno;

use super::{Served, serve};
use crate::devices::dma::{DmaModel, Lanes};
use crate::guest::{AllowedFiles, Share};
use crate::host::{Model, Peer, Vm};
use crate::vfu::Connection;
use crate::wire;
use crate::wire::command::DEVICE_FEATURE;
use crate::wire::feature::{Feature, FeatureOps, LoggingControl, LoggingReport, number};

const VERSION: u16 = 1;
const HEADER: usize = 16;
/// The flag of a message that wants no reply.
const NO_REPLY: u32 = 1 << 4;
const PAGE: u64 = 4096;
/// What is reported: 64 pages, one word of bitmap.
const LENGTH: u64 = 64 * PAGE;

/// A client that says only what it is told to.
struct Client {
    socket: UnixStream,
    server: JoinHandle<()>,
}

impl Client {
    /// Connects to a device of `vm`.
    fn of(vm: &Arc<Vm>) -> Self {
        let (socket, served_socket) = UnixStream::pair().unwrap();
        let served = Served {
            name: "vm/dma".to_owned(),
            model: Model::Emulated(Arc::new(DmaModel {
                lanes: Lanes::new(1).unwrap(),
            })),
            files: AllowedFiles::TmpfsAndHugetlbfs,
            vm: Arc::clone(vm),
            #[cfg(feature = "fault-injection")]
            faults: Vec::new(),
        };
        let server = std::thread::spawn(move || serve(served_socket.into(), &served));
        let mut client = Self { socket, server };
        client.ask(VERSION, &[0, 0, 1, 0]);
        client
    }

    /// Starts the log of all memory.
    fn start_logging(&mut self) {
        let control = LoggingControl {
            page_size: PAGE,
            range_count: 0,
            reserved: 0,
        };
        let flags = FeatureOps::SET.bits() | number::DMA_LOGGING_START;
        self.ask(DEVICE_FEATURE, &feature(flags, &wire::bytes(&control)));
    }

    fn stop_logging(&mut self) {
        let flags = FeatureOps::SET.bits() | number::DMA_LOGGING_STOP;
        self.ask(DEVICE_FEATURE, &feature(flags, &[]));
    }

    /// The pages that are reported dirty, as bits.
    fn report(&mut self) -> u64 {
        let reply = self.ask(DEVICE_FEATURE, &report_request());
        u64::from_le_bytes(*reply.last_chunk().unwrap())
    }

    fn ask(&mut self, command: u16, payload: &[u8]) -> Vec<u8> {
        let reply = self.try_to_ask(command, payload);
        reply.unwrap_or_else(|errno| panic!("command {command} is answered with {errno}"))
    }

    fn try_to_ask(&mut self, command: u16, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        self.send(command, payload);
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header).unwrap();
        let size = u32::from_ne_bytes(header[4..8].try_into().unwrap()) as usize;
        let mut reply = vec![0; size - HEADER];
        self.socket.read_exact(&mut reply).unwrap();
        match i32::from_ne_bytes(header[12..].try_into().unwrap()) {
            0 => Ok(reply),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }

    fn send(&mut self, command: u16, payload: &[u8]) {
        self.send_with(0, command, payload);
    }

    fn send_with(&mut self, flags: u32, command: u16, payload: &[u8]) {
        let mut message = [1_u16, command].map(u16::to_ne_bytes).concat();
        message.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(payload);
        self.socket.write_all(&message).unwrap();
    }

    /// Leaves, and waits until the server has seen to that.
    fn leave(self) {
        drop(self.socket);
        self.server.join().unwrap();
    }
}

fn feature(flags: u32, data: &[u8]) -> Vec<u8> {
    let mut payload = wire::bytes(&Feature {
        argsz: PAGE as u32,
        flags,
    });
    payload.extend(data);
    payload
}

fn report_request() -> Vec<u8> {
    let report = LoggingReport {
        iova: 0,
        length: LENGTH,
        page_size: PAGE,
    };
    feature(
        FeatureOps::GET.bits() | number::DMA_LOGGING_REPORT,
        &wire::bytes(&report),
    )
}

/// As a device of the VM does after it has written page `page`.
fn mark(tracker: &SoftwareTracker, page: u64) {
    tracker.mark(IovaRange::from_len(Iova::new(page * PAGE), PAGE).unwrap());
}

/// Two devices of a VM that both log, and the tracker that they mark.
fn two_clients() -> (Client, Client, Arc<SoftwareTracker>) {
    let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
    let (mut one, mut other) = (Client::of(&vm), Client::of(&vm));
    one.start_logging();
    other.start_logging();
    let tracker = ioas_of(&vm, &one).software_tracker();
    (one, other, tracker)
}

/// The address space that `vm` has for its client.
fn ioas_of(vm: &Arc<Vm>, client: &Client) -> Arc<Ioas> {
    let connection = Connection::of(&client.socket.try_clone().unwrap().into()).unwrap();
    let binding = vm.bind(Peer::of(&client.socket).unwrap(), connection);
    Arc::clone(binding.unwrap().ioas())
}

#[test]
fn pages_in_a_report_that_nobody_received_are_not_lost_for_the_other_devices() {
    let (mut one, mut other, tracker) = two_clients();
    mark(&tracker, 5);
    mark(&tracker, 63);
    one.send(DEVICE_FEATURE, &report_request());
    one.leave();
    assert_eq!(other.report(), 1 << 5 | 1 << 63);
    other.leave();
}

#[test]
fn pages_in_a_report_that_was_asked_for_without_a_reply_are_not_lost() {
    let (mut one, mut other, tracker) = two_clients();
    mark(&tracker, 5);
    one.send_with(NO_REPLY, DEVICE_FEATURE, &report_request());
    assert_eq!(one.report(), 1 << 5);
    mark(&tracker, 6);
    one.send_with(NO_REPLY, DEVICE_FEATURE, &report_request());
    one.stop_logging();
    one.leave();
    assert_eq!(other.report(), 1 << 6);
    other.leave();
}

#[test]
fn pages_in_a_report_that_was_received_are_not_reported_again() {
    let (mut one, mut other, tracker) = two_clients();
    mark(&tracker, 5);
    assert_eq!(one.report(), 1 << 5);
    mark(&tracker, 6);
    assert_eq!(one.report(), 1 << 6);
    one.stop_logging();
    one.leave();
    assert_eq!(other.report(), 0);
    other.leave();
}

/// Waits until there are `bytes` of answers that the client has not read.
fn await_unread(client: &Client, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while rustix::io::ioctl_fionread(&client.socket).unwrap() < bytes {
        assert!(Instant::now() < deadline, "the server does not answer");
        std::thread::yield_now();
    }
}

/// Bytes of the reply to [`report_request`].
const REPORT_REPLY: u64 = 16 + 8 + 24 + 8;

#[test]
fn pages_in_a_report_that_was_not_read_are_not_lost_whatever_its_client_sends_afterwards() {
    for further in [1, 5, 40] {
        let (mut one, mut other, tracker) = two_clients();
        mark(&tracker, 5);
        one.send(DEVICE_FEATURE, &report_request());
        await_unread(&one, REPORT_REPLY);
        mark(&tracker, 6);
        for _ in 0..further {
            one.send(DEVICE_FEATURE, &report_request());
        }
        await_unread(&one, (1 + further) * REPORT_REPLY);
        one.leave();
        assert_eq!(other.report(), 1 << 5 | 1 << 6, "{further} further messages");
        other.leave();
    }
}

#[test]
fn a_client_that_leaves_right_after_its_messages_loses_nothing_for_the_others() {
    for _ in 0..50 {
        let (mut one, mut other, tracker) = two_clients();
        mark(&tracker, 5);
        one.send(DEVICE_FEATURE, &report_request());
        one.send(DEVICE_FEATURE, &report_request());
        one.leave();
        assert_eq!(other.report(), 1 << 5);
        other.leave();
    }
}

/// The tracker of a device that fails as soon as it is read.
#[derive(Debug)]
struct Failing;

impl DirtyTracker for Failing {
    fn kind(&self) -> TrackerKind {
        TrackerKind::Device
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            control: RangeControl::PerRange,
            page_sizes: PageSizes::ANY,
            max_ranges: None,
            update: RangeUpdate::Live,
            peek: PeekSupport::None,
        }
    }

    fn start(&self, _ranges: &[IovaRange], _page_size: PageSize) -> Result<(), TrackerError> {
        Ok(())
    }

    fn stop(&self) -> Result<(), TrackerError> {
        Ok(())
    }

    fn read_and_clear(&self, _report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        Err(TrackerError::Failed("the device does not answer".into()))
    }

    fn peek(&self, _report: &mut ReportBitmap<'_>) -> Result<(), TrackerError> {
        Err(TrackerError::NoPeek)
    }
}

#[test]
fn a_tracker_that_fails_in_the_middle_of_a_migration_fails_every_report_until_all_begin_anew() {
    let vm = Arc::new(Vm::new("vm", Share::of_the_rest()));
    let (mut one, mut other) = (Client::of(&vm), Client::of(&vm));
    one.start_logging();
    other.start_logging();
    let ioas = ioas_of(&vm, &one);
    mark(&ioas.software_tracker(), 5);
    assert_eq!(one.report(), 1 << 5);
    let failing = DeviceKind::Passthrough {
        page_table_tracker: Candidate::Missing("none in this test".into()),
        device_tracker: Candidate::Tracker(Arc::new(Failing)),
        without_tracker: WithoutTracker::Refuse,
    };
    let failing = ioas.attach(failing, "vf").unwrap();
    mark(&ioas.software_tracker(), 6);
    for client in [&mut one, &mut other] {
        assert_eq!(
            client.try_to_ask(DEVICE_FEATURE, &report_request()),
            Err(Errno::IO)
        );
    }
    drop(failing);
    one.stop_logging();
    let still = other.try_to_ask(DEVICE_FEATURE, &report_request());
    assert_eq!(
        still,
        Err(Errno::IO),
        "pages may be missing, though the device has gone"
    );
    other.stop_logging();
    one.start_logging();
    mark(&ioas.software_tracker(), 7);
    assert_eq!(one.report(), 1 << 7);
    one.leave();
    other.leave();
}
