//! What a client may rely on, one promise a test.

mod intx;
mod message;
mod requests;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;

use super::testing::{new_eventfd, take, wait};
use super::{Interrupts, IrqAction, IrqData, IrqError, SetIrqs};
use crate::device::{Bar, IrqCounts, Msix};

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const ERR: u32 = 3;
const REQ: u32 = 4;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

fn interrupts() -> Interrupts {
    Interrupts::new(IrqCounts {
        intx: 1,
        msi: 4,
        msix: Some(Msix {
            vectors: 8,
            bar: Bar::Bar4,
        }),
    })
}

fn eventfds<const N: usize>() -> [OwnedFd; N] {
    std::array::from_fn(|_| new_eventfd().unwrap())
}

fn shared(eventfds: &[OwnedFd]) -> IrqData {
    IrqData::Eventfds(eventfds.iter().map(|fd| fd.try_clone().unwrap()).collect())
}

fn taken(eventfds: &[OwnedFd]) -> Vec<u64> {
    eventfds.iter().map(take).collect()
}

impl Interrupts {
    fn connect(&self, index: u32, start: u32, eventfds: &[OwnedFd]) -> Result<(), IrqError> {
        let count = eventfds.len() as u32;
        self.set(SetIrqs {
            index,
            start,
            count,
            action: IrqAction::Trigger,
            data: shared(eventfds),
        })
    }

    fn disconnect(&self, index: u32, start: u32, count: u32) -> Result<(), IrqError> {
        self.set(SetIrqs {
            index,
            start,
            count,
            action: IrqAction::Trigger,
            data: IrqData::Eventfds(vec![]),
        })
    }

    fn disable(&self, index: u32) -> Result<(), IrqError> {
        self.act(index, 0, 0, IrqAction::Trigger)
    }

    fn act(&self, index: u32, start: u32, count: u32, action: IrqAction) -> Result<(), IrqError> {
        self.set(SetIrqs {
            index,
            start,
            count,
            action,
            data: IrqData::None,
        })
    }

    fn unmask_by(&self, index: u32, eventfds: &[OwnedFd]) -> Result<(), IrqError> {
        self.set(SetIrqs {
            index,
            start: 0,
            count: 1,
            action: IrqAction::Unmask,
            data: shared(eventfds),
        })
    }
}

fn refused(result: Result<(), IrqError>) -> Errno {
    result.unwrap_err().errno()
}
