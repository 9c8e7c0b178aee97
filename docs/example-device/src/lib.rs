//! The device of the tutorial (`docs/src/write-a-device.md`): `digest` reads guest memory block by block, and writes the CRC-32C of
//! each block into a table in guest memory.
//!
//! | module | what it is |
//! |---|---|
//! | here | what the device looks like from outside |
//! | `registers` | the register file |
//! | `engine` | the work: a job, step by step |
//! | `device` | the device traits, on top of those |
//! | `saved` | the saved state and its checks |

mod device;
mod engine;
mod registers;
mod saved;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use pagetrail::device::{Bar, BarSpec, BuiltDevice, DeviceModel, DeviceSpec, IrqCounts, PciClass, PciId};
use pagetrail::guest::Dma;
use pagetrail::irq::Irq;

use device::Digest;

// ANCHOR: model
/// A configured `digest` device.
#[derive(Debug, Clone, Copy)]
pub struct DigestModel {
    /// The most blocks that one job may have.
    pub max_blocks: NonZeroU32,
}

impl DeviceModel for DigestModel {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: PciId {
                vendor: 0x1234,
                device: 0x7075,
                subsystem_vendor: 0x1234,
                subsystem: 0x7075,
            },
            // A processing accelerator.
            class: PciClass {
                base: 0x12,
                sub: 0,
                interface: 0,
            },
            revision: 0,
            bars: vec![BarSpec {
                bar: Bar::Bar0,
                size: 4096,
                mmap: Vec::new(),
            }],
            irqs: IrqCounts {
                intx: 1,
                msi: 1,
                msix: None,
            },
        }
    }

    fn build(&self, dma: Dma, irq: Irq) -> io::Result<BuiltDevice> {
        Ok(BuiltDevice {
            device: Arc::new(Digest::new(*self, dma, irq)?),
            bar_files: Vec::new(),
        })
    }
}
// ANCHOR_END: model
