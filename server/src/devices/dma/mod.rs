//! The reference device: a small DMA engine with a descriptor ring, and a generator that writes guest memory as fast as
//! it is told to. Its register map is `docs/src/dma-device.md`.
//!
//! | module | what it is |
//! |---|---|
//! | `spec` | the register map's constants, without logic |
//! | `registers` | which register an access means |
//! | `layout` | descriptors and completions in guest memory |
//! | `doorbell` | the mappable doorbell page |
//! | `ring` | fetching descriptors, keeping those in flight, completing |
//! | `work` | a descriptor at work: copy, fill, CRC in chunks |
//! | `generator`, `sequence`, `pace` | the generator: its lanes, what they write, and when |
//! | `events` | interrupt causes and the first error |
//! | `engine` | what the threads do |
//! | `saved` | the saved state and its checks |
//! | `device` | the device traits, on top of all that |
//!
//! What concerns dirty tracking is nothing but this: every byte goes to the guest through [`Dma`]. What concerns migration:
//! work is done in short steps by workers that pause between two of them, and a step leaves nothing on its thread.

mod device;
mod doorbell;
mod engine;
mod events;
mod generator;
mod layout;
mod pace;
mod registers;
mod ring;
mod saved;
mod sequence;
mod spec;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use self::device::DmaDevice;
use crate::device::{Bar, BarSpec, BuiltDevice, DeviceModel, DeviceSpec, IrqCounts, MmapArea, Msix};
use crate::guest::Dma;
use crate::irq::Irq;

/// A worker that finds DMA stopped tries again after this time, if it has not been paused by then.
const RETRY: Duration = Duration::from_millis(1);

/// Number of worker threads and generator lanes: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes(u32);

impl Lanes {
    /// `None` when `lanes` is not 1 to 64.
    pub fn new(lanes: u32) -> Option<Self> {
        (1..=spec::MAX_LANES).contains(&lanes).then_some(Self(lanes))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A configured `dma` device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaModel {
    /// Worker threads and generator lanes.
    pub lanes: Lanes,
}

impl DeviceModel for DmaModel {
    fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            id: spec::PCI_ID,
            class: spec::PCI_CLASS,
            revision: 0,
            bars: vec![
                BarSpec {
                    bar: Bar::Bar0,
                    size: spec::BAR0_SIZE,
                    mmap: vec![MmapArea {
                        offset: spec::DOORBELL_PAGE,
                        len: spec::DOORBELL_PAGE_SIZE,
                    }],
                },
                BarSpec {
                    bar: Bar::Bar4,
                    size: spec::BAR4_SIZE,
                    mmap: Vec::new(),
                },
            ],
            irqs: IrqCounts {
                intx: 1,
                msi: spec::VECTORS,
                msix: Some(Msix {
                    vectors: spec::VECTORS,
                    bar: Bar::Bar4,
                }),
            },
        }
    }

    fn build(&self, dma: Dma, irq: Irq) -> std::io::Result<BuiltDevice> {
        let (device, bar0) = DmaDevice::new(self.lanes, dma, irq)?;
        Ok(BuiltDevice {
            device: Arc::new(device),
            bar_files: vec![(Bar::Bar0, bar0)],
        })
    }
}
