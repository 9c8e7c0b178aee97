//! What reaches the kernel of a client's requests, and what the kernel says of the device as a whole.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::irq::IrqData;
use crate::passthrough::model::{FakeDevice, MSI, State, event};

const PATIENCE: Duration = Duration::from_secs(10);

fn interrupts() -> (Arc<FakeDevice>, Interrupts, Receiver<Unheard>) {
    let device = FakeDevice::new();
    let (unheard, heard) = bounded(8);
    let kernel: Arc<dyn Device> = device.clone();
    let interrupts = Interrupts::new(&kernel, "vf", move |what| unheard.send(what).unwrap()).unwrap();
    device.with(|state| state.irqs.clear());
    (device, interrupts, heard)
}

fn request(index: u32, start: u32, count: u32, data: IrqData) -> SetIrqs {
    SetIrqs {
        index,
        start,
        count,
        action: IrqAction::Trigger,
        data,
    }
}

#[test]
fn eventfds_go_to_the_kernel() {
    let (device, interrupts, _) = interrupts();
    let fds = vec![event(), event()];
    interrupts.set(request(2, 1, 2, IrqData::Eventfds(fds))).unwrap();
    interrupts
        .set(request(2, 0, 4, IrqData::Eventfds(Vec::new())))
        .unwrap();
    interrupts.set(request(2, 0, 0, IrqData::None)).unwrap();
    let granted = device.with(|state| state.irqs.clone());
    let trigger = IrqAction::Trigger;
    assert_eq!(
        granted,
        [
            (2, 1, 2, trigger, 2),
            (2, 0, 4, trigger, 0),
            (2, 0, 0, trigger, 0)
        ]
    );
}

#[test]
fn requests_that_do_not_fit_never_reach_the_kernel() {
    let (device, interrupts, _) = interrupts();
    for bad in [
        request(2, 3, 2, IrqData::None),
        request(2, u32::MAX, 2, IrqData::None),
        request(1, 0, 33, IrqData::None),
        request(3, 0, 1, IrqData::None),
        request(5, 0, 0, IrqData::None),
        request(2, 0, 4, IrqData::Eventfds(vec![event()])),
        request(2, 0, 4, IrqData::Bool(vec![1])),
        request(3, 0, 1, IrqData::Eventfds(vec![event()])),
    ] {
        assert_eq!(interrupts.set(bad).unwrap_err(), Errno::INVAL);
    }
    assert!(device.with(|state| state.irqs.is_empty()));
}

#[test]
fn a_kind_that_the_kernel_has_not_has_no_interrupts() {
    let (_, interrupts, _) = interrupts();
    assert_eq!(interrupts.info(3).unwrap().count, 0);
    assert_eq!(interrupts.info(2).unwrap().count, 4);
    assert_eq!(interrupts.info(5).unwrap_err(), Errno::INVAL);
}

#[test]
fn the_hosts_wish_reaches_the_client_if_it_listens_and_is_heard_if_not() {
    let (device, interrupts, heard) = interrupts();
    device.request_back();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), Unheard::Request);
    let client = event();
    let fds = vec![client.try_clone().unwrap()];
    interrupts.set(request(4, 0, 1, IrqData::Eventfds(fds))).unwrap();
    device.request_back();
    let mut fds = [PollFd::new(&client, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the client is told");
    assert!(heard.is_empty());
    assert!(
        device.with(|state| state.irqs.iter().all(|(index, ..)| *index != 4)),
        "the kernel keeps this process's eventfd"
    );
}

#[test]
fn at_the_end_the_kernel_has_no_eventfd() {
    let (device, interrupts, _) = interrupts();
    interrupts.disable();
    drop(interrupts);
    let disabled: Vec<u32> = device.with(|state| state.irqs.iter().map(|irq| irq.0).collect());
    assert_eq!(disabled, [0, 1, 2, 3, 4]);
    assert!(device.with(|state| state.request.is_none()));
}

/// Vectors of MSI from `start` on.
fn msi(interrupts: &Interrupts, start: u32, fds: &[OwnedFd]) -> Result<(), Errno> {
    let data = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    interrupts.set(request(1, start, fds.len() as u32, IrqData::Eventfds(data)))
}

/// How often each was signalled since the last look.
fn signals(fds: &[OwnedFd]) -> Vec<u64> {
    let taken = |fd| {
        let mut count = [0; 8];
        let read = rustix::io::read(fd, &mut count);
        read.map_or(0, |_| u64::from_ne_bytes(count))
    };
    fds.iter().map(taken).collect()
}

/// The device signals a vector.
fn signal(device: &FakeDevice, vector: usize) {
    device.with(|state| {
        let eventfd = state.msi.get(vector).and_then(Option::as_ref);
        let eventfd = eventfd.expect("the kernel has its eventfd");
        rustix::io::write(eventfd, &1_u64.to_ne_bytes()).unwrap();
    });
}

#[test]
fn vectors_that_come_in_several_messages_are_all_enabled() {
    let (device, interrupts, _) = interrupts();
    let fds: Vec<OwnedFd> = (0..MSI).map(|_| event()).collect();
    for (start, fds) in (0..).step_by(8).zip(fds.chunks(8)) {
        msi(&interrupts, start, fds).unwrap();
    }
    signals(&fds);
    for vector in [0, 7, 8, 31] {
        signal(&device, vector);
        let told: Vec<usize> = (0..)
            .zip(signals(&fds))
            .filter(|(_, count)| *count > 0)
            .map(|(vector, _)| vector)
            .collect();
        assert_eq!(told, [vector]);
    }
    interrupts.set(request(1, 0, 0, IrqData::None)).unwrap();
    assert!(device.with(|state| state.msi.is_empty()));
    msi(&interrupts, 0, &fds[..2]).unwrap();
    assert_eq!(
        device.with(|state| state.msi.len()),
        2,
        "what was enabled before is forgotten"
    );
}

#[test]
fn what_may_have_been_lost_while_vectors_were_added_is_signalled_once() {
    let (_, interrupts, _) = interrupts();
    let fds = [event(), event(), event()];
    msi(&interrupts, 0, &fds[..2]).unwrap();
    assert_eq!(signals(&fds), [0, 0, 0], "nothing could have been lost");
    msi(&interrupts, 2, &fds[2..]).unwrap();
    assert_eq!(signals(&fds), [1, 1, 1]);
    msi(&interrupts, 0, &fds[..2]).unwrap();
    assert_eq!(signals(&fds), [0, 0, 0], "they were enabled all the time");
}

#[test]
fn vectors_without_an_eventfd_stay_without_when_others_are_added() {
    let (device, interrupts, _) = interrupts();
    msi(&interrupts, 2, &[event()]).unwrap();
    interrupts
        .set(request(1, 4, 2, IrqData::Eventfds(Vec::new())))
        .unwrap();
    let connected = |state: &mut State| -> Vec<bool> { state.msi.iter().map(Option::is_some).collect() };
    assert_eq!(device.with(connected), [false, false, true, false, false, false]);
    interrupts
        .set(request(1, 2, 1, IrqData::Eventfds(Vec::new())))
        .unwrap();
    msi(&interrupts, 6, &[event()]).unwrap();
    assert_eq!(
        device.with(connected),
        [false, false, false, false, false, false, true]
    );
}

#[test]
fn vectors_that_the_host_has_not_leave_those_that_are_enabled() {
    let (device, interrupts, _) = interrupts();
    device.with(|state| state.msi_available = 4);
    let fds: Vec<OwnedFd> = (0..8).map(|_| event()).collect();
    assert_eq!(msi(&interrupts, 0, &fds), Err(Errno::NOSPC));
    msi(&interrupts, 0, &fds[..4]).unwrap();
    assert_eq!(msi(&interrupts, 4, &fds[4..]), Err(Errno::NOSPC));
    assert_eq!(
        signals(&fds),
        [1, 1, 1, 1, 0, 0, 0, 0],
        "they were off for a moment"
    );
    signal(&device, 3);
    assert_eq!(signals(&fds)[3], 1);
}

#[test]
fn vectors_that_cannot_be_enabled_again_are_off_and_can_be_enabled_anew() {
    let (device, interrupts, _) = interrupts();
    let fds: Vec<OwnedFd> = (0..8).map(|_| event()).collect();
    msi(&interrupts, 0, &fds[..4]).unwrap();
    device.with(|state| state.msi_available = 2);
    assert_eq!(msi(&interrupts, 4, &fds[4..]), Err(Errno::NOSPC));
    assert!(device.with(|state| state.msi.is_empty()));
    msi(&interrupts, 0, &fds[..2]).unwrap();
    assert_eq!(device.with(|state| state.msi.len()), 2);
}
