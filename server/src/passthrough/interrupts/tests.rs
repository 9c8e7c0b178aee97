//! What reaches the kernel of a client's requests, and what the kernel says of the device as a whole.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::irq::IrqData;
use crate::passthrough::model::{FakeDevice, event};

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
        request(1, 0, 1, IrqData::None),
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
