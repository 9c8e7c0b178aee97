//! The client's side of a device's interrupts: GET_IRQ_INFO and SET_IRQS.

use std::sync::Arc;

use parking_lot::Mutex;

use super::command::Command;
use super::eventfd::Eventfd;
use super::intx::Intx;
use super::lines::{Lines, Mode};
use super::message::Messages;
use super::request::{INFO_AUTOMASKED, INFO_EVENTFD, INFO_MASKABLE};
use super::resample::Resampler;
use super::{Irq, IrqAction, IrqError, IrqIndex, IrqInfo, SetIrqs};
use crate::device::IrqCounts;

/// The interrupts of one connection. Dropping them ends unmasking by eventfd; the eventfds close with the last [`Irq`].
#[derive(Debug)]
pub struct Interrupts {
    counts: IrqCounts,
    lines: Arc<Lines>,
    /// Locked for the whole of a request: requests do not overlap.
    extras: Mutex<Extras>,
}

/// What the device's threads have nothing to do with.
#[derive(Debug, Default)]
struct Extras {
    /// Unmasks INTx; there only while INTx is enabled.
    resampler: Option<Resampler>,
    err: Option<Eventfd>,
    req: Option<Eventfd>,
}

impl Interrupts {
    /// Interrupts of a device with `counts`: none enabled, no cause pending.
    pub fn new(counts: IrqCounts) -> Self {
        Self {
            counts,
            lines: Arc::default(),
            extras: Mutex::default(),
        }
    }

    /// The device's handle.
    pub fn irq(&self) -> Irq {
        Irq(Arc::clone(&self.lines))
    }

    /// GET_IRQ_INFO of `index`; nothing when there is no such index.
    pub fn info(&self, index: u32) -> Option<IrqInfo> {
        let index = IrqIndex::from_wire(index)?;
        let flags = match index {
            IrqIndex::Intx => INFO_EVENTFD | INFO_MASKABLE | INFO_AUTOMASKED,
            IrqIndex::Msi | IrqIndex::Msix => INFO_EVENTFD | INFO_MASKABLE,
            IrqIndex::Err | IrqIndex::Req => INFO_EVENTFD,
        };
        Some(IrqInfo {
            flags,
            count: self.count(index),
        })
    }

    /// Tells the client of something that is no device's interrupt: [`IrqIndex::Err`] or [`IrqIndex::Req`]. Returns whether it wants to
    /// be told.
    pub(crate) fn announce(&self, index: IrqIndex) -> bool {
        let extras = self.extras.lock();
        let listener = match index {
            IrqIndex::Err => &extras.err,
            IrqIndex::Req => &extras.req,
            IrqIndex::Intx | IrqIndex::Msi | IrqIndex::Msix => &None,
        };
        if let Some(listener) = listener {
            listener.signal();
        }
        listener.is_some()
    }

    /// SET_IRQS. A request is checked whole, with its file descriptors, before it changes anything.
    ///
    /// # Errors
    ///
    /// [`IrqError`], with the errno that the kernel has for it.
    pub fn set(&self, request: SetIrqs) -> Result<(), IrqError> {
        let index = IrqIndex::from_wire(request.index).ok_or(IrqError::NoSuchIndex(request.index))?;
        let count = self.count(index);
        let command = Command::parse(request, index, count)?;
        let mut extras = self.extras.lock();
        match index {
            IrqIndex::Intx => self.set_lines(&mut extras, index, command, || Mode::Intx(Intx::default())),
            IrqIndex::Msi => self.set_lines(&mut extras, index, command, || Mode::Msi(Messages::msi(count))),
            IrqIndex::Msix => {
                self.set_lines(&mut extras, index, command, || Mode::Msix(Messages::msix(count)))
            }
            IrqIndex::Err => set_single(&mut extras.err, index, command),
            IrqIndex::Req => set_single(&mut extras.req, index, command),
        }
    }

    /// Signals every pending cause once more: for when the device first runs after RESUMING.
    pub fn resignal(&self) {
        self.lines.resignal();
    }

    fn count(&self, index: IrqIndex) -> u32 {
        match index {
            IrqIndex::Intx => self.counts.intx,
            IrqIndex::Msi => self.counts.msi,
            IrqIndex::Msix => self.counts.msix.map_or(0, |msix| msix.vectors),
            IrqIndex::Err | IrqIndex::Req => 1,
        }
    }

    /// Does what is asked of INTx, MSI or MSI-X.
    fn set_lines(
        &self,
        extras: &mut Extras,
        index: IrqIndex,
        command: Command,
        enable: impl FnOnce() -> Mode,
    ) -> Result<(), IrqError> {
        let mut mode = self.lines.mode();
        match (command, mode.index()) {
            (Command::Connect { start, triggers }, None) => {
                *mode = enable();
                mode.connect(start, triggers, self.lines.pending());
            }
            (Command::Connect { .. }, Some(enabled)) if enabled != index => {
                return Err(IrqError::OtherEnabled {
                    wanted: index,
                    enabled,
                });
            }
            (_, enabled) if enabled != Some(index) => return Err(IrqError::NotEnabled(index)),
            (Command::Connect { start, triggers }, _) => mode.connect(start, triggers, self.lines.pending()),
            (Command::Act { action, chosen }, _) => {
                for number in chosen {
                    mode.act(action, number, self.lines.pending());
                }
            }
            (Command::Disable, _) => {
                *mode = Mode::Off;
                // Ending the resampler waits for its thread, which may be waiting for this.
                drop(mode);
                extras.resampler = None;
            }
            (Command::UnmaskBy(eventfd), _) => {
                drop(mode);
                let start = |eventfd| Resampler::start(eventfd, Arc::clone(&self.lines));
                extras.resampler = eventfd.map(start).transpose()?;
            }
        }
        Ok(())
    }
}

/// Does what is asked of an index with one interrupt that no device raises.
fn set_single(trigger: &mut Option<Eventfd>, index: IrqIndex, command: Command) -> Result<(), IrqError> {
    match command {
        Command::Connect { mut triggers, .. } => *trigger = triggers.pop().flatten(),
        Command::Disable => drop(trigger.take().ok_or(IrqError::NotEnabled(index))?),
        Command::Act {
            action: IrqAction::Trigger,
            chosen,
        } => {
            let trigger = trigger.as_ref().ok_or(IrqError::NotEnabled(index))?;
            for _ in chosen {
                trigger.signal();
            }
        }
        Command::Act { action, .. } => return Err(IrqError::Unsupported { index, action }),
        Command::UnmaskBy(_) => {
            return Err(IrqError::Unsupported {
                index,
                action: IrqAction::Unmask,
            });
        }
    }
    Ok(())
}
