//! The work: a job reads its blocks one after the other, and writes an entry of the table for each.

use std::num::NonZeroU32;
use std::time::Duration;

use pagetrail::device::Next;
use pagetrail::guest::{Dma, DmaError};
use pagetrail::irq::Irq;
use parking_lot::Mutex;

/// Bytes of a block.
const BLOCK: usize = 4096;
/// Bytes of a table entry: the block's CRC-32C and the job's number, 32 bits each.
const ENTRY: usize = 8;

/// The only interrupt cause: a job has ended.
const ENDED: u32 = 0;

/// A step that finds DMA stopped is tried again after this time, if the worker has not been paused by then.
const RETRY: Duration = Duration::from_millis(1);

// ANCHOR: job
/// The last job, under way or ended. This is all that the device remembers from one step to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Job {
    /// IOVA of the first block.
    pub(crate) source: u64,
    /// IOVA of the table.
    pub(crate) table: u64,
    /// Jobs since the reset, this one included.
    pub(crate) number: u32,
    /// Blocks to read.
    pub(crate) blocks: u32,
    /// Blocks whose entry has been written.
    pub(crate) done: u32,
    /// It was refused, or could not go on.
    pub(crate) failed: bool,
}

impl Job {
    pub(crate) fn is_busy(&self) -> bool {
        self.done < self.blocks && !self.failed
    }
}
// ANCHOR_END: job

// ANCHOR: step
/// What the worker and the registers share.
pub(crate) struct Engine {
    dma: Dma,
    irq: Irq,
    job: Mutex<Job>,
}

impl Engine {
    /// One step of the worker: one block. No lock is held while memory is accessed, which may take its time.
    pub(crate) fn step(&self) -> Next {
        let now = self.job();
        if !now.is_busy() {
            return Next::Wait;
        }
        let written = self.digest_block(&now);
        // Nobody else changes a job that is under way.
        let mut job = self.job.lock();
        match written {
            Ok(()) => job.done += 1,
            // Nothing is wrong: the same block is read again when the device runs.
            Err(DmaError::Stopped) => return Next::Sleep(RETRY),
            Err(error) => {
                tracing::debug!(%error, "digest: the job failed");
                job.failed = true;
            }
        }
        if !job.is_busy() {
            self.irq.raise(ENDED);
        }
        Next::Again
    }

    fn digest_block(&self, job: &Job) -> Result<(), DmaError> {
        let mut block = [0; BLOCK];
        self.dma.read(element(job.source, job.done, BLOCK), &mut block)?;
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        entry[4..].copy_from_slice(&job.number.to_le_bytes());
        self.dma.write(element(job.table, job.done, ENTRY), &entry)
    }
}

/// IOVA of an element. One beyond the address space is refused by the access to it.
fn element(base: u64, index: u32, size: usize) -> u64 {
    base.saturating_add(u64::from(index) * size as u64)
}
// ANCHOR_END: step

// ANCHOR: control
impl Engine {
    pub(crate) fn new(dma: Dma, irq: Irq) -> Self {
        Self {
            dma,
            irq,
            job: Mutex::default(),
        }
    }

    /// The job as it is now.
    pub(crate) fn job(&self) -> Job {
        *self.job.lock()
    }

    /// Changes the addresses of the next job. Not while one is under way.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Job)) {
        let mut job = self.job.lock();
        if !job.is_busy() {
            change(&mut job);
        }
    }

    /// Begins a job, or refuses it. Not while one is under way.
    pub(crate) fn begin(&self, blocks: u32, max_blocks: NonZeroU32) {
        let mut job = self.job.lock();
        if job.is_busy() {
            return;
        }
        let fits = (1..=max_blocks.get()).contains(&blocks);
        *job = Job {
            number: job.number.wrapping_add(1),
            blocks: if fits { blocks } else { 0 },
            done: 0,
            failed: !fits,
            ..*job
        };
        if !fits {
            self.irq.raise(ENDED);
        }
    }

    /// Whether the driver has yet to learn of the end of a job.
    pub(crate) fn has_cause(&self) -> bool {
        self.irq.pending() != 0
    }

    /// The driver has learnt of it.
    pub(crate) fn acknowledge(&self) {
        self.irq.clear(ENDED);
    }

    /// Replaces everything, on a quiescent device. Signals nothing: the server does when the device runs again.
    pub(crate) fn replace(&self, job: Job, has_cause: bool) {
        *self.job.lock() = job;
        self.irq.set_pending(u64::from(has_cause) << ENDED);
    }
}
// ANCHOR_END: control
