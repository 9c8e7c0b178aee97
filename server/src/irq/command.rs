//! A SET_IRQS request, checked.

use std::os::fd::OwnedFd;

use super::eventfd::{Eventfd, Refused};
use super::{IrqAction, IrqData, IrqError, IrqIndex, SetIrqs};

/// What a request asks for, of an index that has the interrupts named.
#[derive(Debug)]
pub(super) enum Command {
    /// To disable the index.
    Disable,
    /// To connect eventfds that are signalled, or to take them away. Enables the index.
    Connect {
        /// The first interrupt.
        start: usize,
        /// One for each interrupt, at least one.
        triggers: Vec<Option<Eventfd>>,
    },
    /// To unmask the interrupt when this is signalled, or no longer to.
    UnmaskBy(Option<Eventfd>),
    /// To act on these interrupts.
    Act {
        /// What is to be done.
        action: IrqAction,
        /// The interrupts.
        chosen: Vec<usize>,
    },
}

impl Command {
    /// Checks `request` against an index with `available` interrupts, and the file descriptors in it.
    pub(super) fn parse(request: SetIrqs, index: IrqIndex, available: u32) -> Result<Self, IrqError> {
        let SetIrqs {
            start,
            count,
            action,
            data,
            ..
        } = request;
        let out_of_range = IrqError::OutOfRange {
            index,
            start,
            count,
            available,
        };
        match start.checked_add(count) {
            Some(end) if start < available && end <= available => {}
            _ => return Err(out_of_range),
        }
        let numbers = start as usize..(start + count) as usize;
        match (action, data) {
            (IrqAction::Trigger, IrqData::None) if count == 0 => Ok(Self::Disable),
            _ if count == 0 => Err(out_of_range),
            (IrqAction::Mask | IrqAction::Unmask, _) if matches!(index, IrqIndex::Err | IrqIndex::Req) => {
                Err(IrqError::Unsupported { index, action })
            }
            (action, IrqData::None) => Ok(Self::Act {
                action,
                chosen: numbers.collect(),
            }),
            (action, IrqData::Bool(flags)) => {
                check_length(flags.len(), count)?;
                let chosen = numbers
                    .zip(flags)
                    .filter(|&(_, flag)| flag != 0)
                    .map(|(number, _)| number);
                Ok(Self::Act {
                    action,
                    chosen: chosen.collect(),
                })
            }
            (IrqAction::Trigger, IrqData::Eventfds(fds)) => Ok(Self::Connect {
                start: numbers.start,
                triggers: eventfds(fds, count)?,
            }),
            (IrqAction::Unmask, IrqData::Eventfds(fds)) if index == IrqIndex::Intx => {
                Ok(Self::UnmaskBy(eventfds(fds, count)?.pop().flatten()))
            }
            (action, IrqData::Eventfds(_)) => Err(IrqError::Unsupported { index, action }),
        }
    }
}

/// One eventfd for each of `count` interrupts, or nothing for any when there are no file descriptors.
fn eventfds(fds: Vec<OwnedFd>, count: u32) -> Result<Vec<Option<Eventfd>>, IrqError> {
    if fds.is_empty() {
        return Ok((0..count).map(|_| None).collect());
    }
    check_length(fds.len(), count)?;
    let eventfd = |(position, fd)| {
        Eventfd::new(fd).map(Some).map_err(|refused| match refused {
            Refused::NotEventfd => IrqError::NotEventfd { position },
            Refused::Host(error) => IrqError::Host(error),
        })
    };
    fds.into_iter().enumerate().map(eventfd).collect()
}

fn check_length(items: usize, count: u32) -> Result<(), IrqError> {
    if items == count as usize {
        Ok(())
    } else {
        Err(IrqError::WrongLength { items, count })
    }
}
