//! [`Vf`]: a virtual function that writes memory when it is told to. Its registers are described in QEMU's
//! `docs/specs/mlx5-rig.rst`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use iommufd_ioctls::IommuFd;
use pagetrail_tracker::IovaRange;
use vfio_ioctls::VfioDevice;

use crate::device::bind;
use crate::memory::PAGE;
use crate::registers::Registers;

const ID: u64 = 0x00;
const STATUS: u64 = 0x04;
const ADDRESS: u64 = 0x08;
const STRIDE: u64 = 0x10;
const VALUE: u64 = 0x18;
const LENGTH: u64 = 0x20;
const COUNT: u64 = 0x24;
const INTERVAL: u64 = 0x28;
const GO: u64 = 0x2c;
const WRITES: u64 = 0x30;
const FAULTS: u64 = 0x40;
const REPORT_DELAY: u64 = 0x44;
const MESSAGE_PAGES: u64 = 0x48;
const QUEUE_DEPTH: u64 = 0x4c;
const MEMORY: u64 = 0x8000;

/// What [`ID`] holds.
const IS_RIG: u32 = 0x3567_724d;
const BUSY: u32 = 1;
const DONE: u32 = 2;
const START: u32 = 1;

/// Bytes of the memory in the virtual function.
pub(crate) const MEMORY_LEN: u64 = 0x8000;
/// Bytes of one write at most.
const LONGEST_WRITE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Each report leaves out its last page, which is forgotten.
    DropPage = 1 << 0,
    /// What is written goes into the report after the next.
    LatePages = 1 << 1,
    /// A report ends in a completion with an error.
    ErrorCompletion = 1 << 2,
    /// A report ends in a message that says that the tracker is broken.
    ErrorState = 1 << 3,
    /// A report ends in an event: the tracker has changed its state.
    Object = 1 << 4,
    /// A report ends in an event: the completion queue has overrun.
    CompletionQueue = 1 << 5,
    /// A report ends in an event: the queue pair is broken.
    QueuePair = 1 << 6,
    /// Saving fails.
    Save = 1 << 7,
    /// Loading fails.
    Load = 1 << 8,
    /// Suspending fails.
    Suspend = 1 << 9,
}

/// How reports are sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reporting {
    /// Time between the order for a report and the report.
    pub(crate) delay: Duration,
    /// Most pages in one message; 0 for as many as fit.
    pub(crate) message_pages: u32,
    /// Most messages that the driver has not taken yet; 0 for as many as its queue has room for.
    pub(crate) queue_depth: u32,
}

/// Writes of the same length at addresses that are equally far from each other. The value, of eight bytes and repeated over
/// the length, grows by one with each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writes {
    pub(crate) start: u64,
    pub(crate) stride: u64,
    pub(crate) len: u64,
    pub(crate) count: u64,
    pub(crate) value: u64,
    /// Time before each; all at once without.
    pub(crate) interval: Option<Duration>,
}

/// A virtual function, bound to an iommufd.
pub(crate) struct Vf {
    pub(crate) iommufd: Arc<IommuFd>,
    pub(crate) vfio: Arc<VfioDevice>,
    /// What the iommufd calls it.
    pub(crate) id: u32,
    registers: Registers,
    /// One order is given at a time.
    orders: Mutex<()>,
}

impl Vf {
    /// Binds the virtual function at `address`, which `mlx5_vfio_pci` has, to the iommufd.
    pub(crate) fn open(iommufd: &Arc<IommuFd>, address: &str) -> Result<Self> {
        let (vfio, id) = bind(iommufd, address)?;
        let registers = Registers::of(&vfio);
        ensure!(
            registers.get32(ID) == IS_RIG,
            "{address} is no virtual function of QEMU's mlx5-rig"
        );
        Ok(Self {
            iommufd: iommufd.clone(),
            vfio,
            id,
            registers,
            orders: Mutex::default(),
        })
    }

    /// Makes it as it is when it is new, faults included.
    pub(crate) fn reset(&self) {
        self.vfio.reset();
        self.registers.master_the_bus();
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.registers.set32(FAULTS, fault as u32);
    }

    pub(crate) fn clear_faults(&self) {
        self.registers.set32(FAULTS, 0);
    }

    pub(crate) fn set_reporting(&self, reporting: Reporting) {
        self.registers
            .set32(REPORT_DELAY, reporting.delay.as_micros() as u32);
        self.registers.set32(MESSAGE_PAGES, reporting.message_pages);
        self.registers.set32(QUEUE_DEPTH, reporting.queue_depth);
    }

    /// Orders writes, which go on meanwhile if they have an interval.
    pub(crate) fn begin(&self, writes: Writes) -> Result<()> {
        let _one_at_a_time = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let registers = &self.registers;
        ensure!(!self.is_busy(), "the virtual function is still writing");
        registers.set64(ADDRESS, writes.start);
        registers.set64(STRIDE, writes.stride);
        registers.set64(VALUE, writes.value);
        registers.set32(LENGTH, u32::try_from(writes.len)?);
        registers.set32(COUNT, u32::try_from(writes.count)?);
        let interval = writes.interval.map_or(0, |interval| interval.as_micros());
        registers.set32(INTERVAL, u32::try_from(interval)?);
        registers.set32(GO, START);
        Ok(())
    }

    /// Does all of the writes.
    pub(crate) fn write(&self, writes: Writes) -> Result<()> {
        self.begin(writes)?;
        self.finish()
    }

    /// Writes the bytes of `range`.
    pub(crate) fn write_range(&self, range: IovaRange) -> Result<()> {
        let (start, end) = (range.start().get(), range.last().get() + 1);
        for start in (start..end).step_by(LONGEST_WRITE as usize) {
            self.write(Writes {
                start,
                stride: 0,
                len: (end - start).min(LONGEST_WRITE),
                count: 1,
                value: u64::MAX / 3,
                interval: None,
            })?;
        }
        Ok(())
    }

    /// Writes a word of each of `count` pages, from `first` on.
    pub(crate) fn write_pages_from(&self, first: u64, count: u64) -> Result<()> {
        self.write(Writes {
            start: first * PAGE,
            stride: PAGE,
            len: 8,
            count,
            value: 1,
            interval: None,
        })
    }

    /// Waits for the end of what was begun.
    pub(crate) fn finish(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_busy() {
            ensure!(Instant::now() < deadline, "the virtual function does not end");
            std::thread::yield_now();
        }
        match self.registers.get32(STATUS) {
            DONE => Ok(()),
            status => bail!("the virtual function has not written: status {status}"),
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.registers.get32(STATUS) == BUSY
    }

    /// Writes that are left to be done.
    pub(crate) fn left(&self) -> u64 {
        self.registers.get32(COUNT).into()
    }

    /// Writes done since the last reset, by this virtual function or the one that its state was taken from.
    pub(crate) fn writes(&self) -> u64 {
        self.registers.get64(WRITES)
    }

    /// Eight bytes of its own memory.
    pub(crate) fn memory(&self, offset: u64) -> u64 {
        self.registers.get64(MEMORY + offset)
    }

    pub(crate) fn set_memory(&self, offset: u64, value: u64) {
        self.registers.set64(MEMORY + offset, value);
    }
}
