//! GET_IRQ_INFO and SET_IRQS.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::Session;
use crate::irq::{IrqAction, IrqData, SetIrqs};
use crate::wire;
use crate::wire::irq::{IrqInfo, IrqSet, SetFlags};

impl Session {
    pub(super) fn irq_info(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (request, rest) = wire::split::<IrqInfo>(payload)?;
        let size = size_of::<IrqInfo>() as u32;
        if !rest.is_empty() || request.argsz < size {
            return Err(Errno::INVAL);
        }
        let info = self.backend.irq_info(request.index)?;
        let reply = IrqInfo {
            argsz: size,
            flags: info.flags,
            index: request.index,
            count: info.count,
        };
        Ok(wire::bytes(&reply))
    }

    pub(super) fn set_irqs(&self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let (set, rest) = wire::split::<IrqSet>(payload)?;
        let flags = SetFlags::from_bits(set.flags).ok_or(Errno::INVAL)?;
        let action = match flags & SetFlags::ACTION {
            SetFlags::ACTION_MASK => IrqAction::Mask,
            SetFlags::ACTION_UNMASK => IrqAction::Unmask,
            SetFlags::ACTION_TRIGGER => IrqAction::Trigger,
            _ => return Err(Errno::INVAL),
        };
        let data = match flags & SetFlags::DATA {
            SetFlags::DATA_NONE if rest.is_empty() && fds.is_empty() => IrqData::None,
            SetFlags::DATA_BOOL if rest.len() == set.count as usize && fds.is_empty() => {
                IrqData::Bool(rest.to_vec())
            }
            // The descriptors come beside the message; a client may leave the kernel's array of numbers in it.
            SetFlags::DATA_EVENTFD => IrqData::Eventfds(fds),
            _ => return Err(Errno::INVAL),
        };
        let request = SetIrqs {
            index: set.index,
            start: set.start,
            count: set.count,
            action,
            data,
        };
        self.backend.set_irqs(request)?;
        Ok(Vec::new())
    }
}
