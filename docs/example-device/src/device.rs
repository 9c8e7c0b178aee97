//! The device traits: registers, running and stopping, saving and restoring.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pagetrail::device::{
    Bar, DeviceIo, Identity, IoError, Job as Work, QuiesceError, RestoreError, RunState, SaveError,
    SavedState, Workers,
};
use pagetrail::guest::Dma;
use pagetrail::irq::Irq;

use crate::DigestModel;
use crate::engine::{Engine, Job};
use crate::registers::{CAUSE_ENDED, ID_VALUE, Register, STATUS_BUSY, STATUS_FAILED};
use crate::saved::{self, Snapshot};

// ANCHOR: device
/// A `digest` device.
pub(crate) struct Digest {
    model: DigestModel,
    engine: Arc<Engine>,
    workers: Workers,
}

impl Digest {
    /// A device after reset, quiescent.
    pub(crate) fn new(model: DigestModel, dma: Dma, irq: Irq) -> io::Result<Self> {
        let engine = Arc::new(Engine::new(dma, irq));
        let worker = Arc::clone(&engine);
        let work: Work = Box::new(move |_| worker.step());
        Ok(Self {
            model,
            engine,
            workers: Workers::start("digest", vec![work])?,
        })
    }
}
// ANCHOR_END: device

// ANCHOR: io
impl DeviceIo for Digest {
    fn read(&self, _: Bar, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        let register = Register::decode(offset, data.len())?;
        data.copy_from_slice(&self.read_register(register).to_le_bytes());
        Ok(())
    }

    fn write(&self, _: Bar, offset: u64, data: &[u8]) -> Result<(), IoError> {
        let register = Register::decode(offset, data.len())?;
        let value = data
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte));
        self.write_register(register, value);
        Ok(())
    }
}

impl Digest {
    fn read_register(&self, register: Register) -> u32 {
        let job = self.engine.job();
        match register {
            Register::Id => ID_VALUE,
            Register::Status if job.failed => STATUS_FAILED,
            Register::Status if job.is_busy() => STATUS_BUSY,
            Register::Cause if self.engine.has_cause() => CAUSE_ENDED,
            Register::MaxBlocks => self.model.max_blocks.get(),
            Register::SourceLow => job.source as u32,
            Register::SourceHigh => (job.source >> 32) as u32,
            Register::TableLow => job.table as u32,
            Register::TableHigh => (job.table >> 32) as u32,
            Register::Blocks => job.blocks,
            Register::Done => job.done,
            Register::Job => job.number,
            Register::Status | Register::Cause | Register::Reserved => 0,
        }
    }

    fn write_register(&self, register: Register, value: u32) {
        let engine = &self.engine;
        match register {
            Register::Cause if value & CAUSE_ENDED != 0 => engine.acknowledge(),
            Register::SourceLow => engine.configure(|job| job.source = with_low(job.source, value)),
            Register::SourceHigh => engine.configure(|job| job.source = with_high(job.source, value)),
            Register::TableLow => engine.configure(|job| job.table = with_low(job.table, value)),
            Register::TableHigh => engine.configure(|job| job.table = with_high(job.table, value)),
            // The doorbell.
            Register::Blocks => {
                engine.begin(value, self.model.max_blocks);
                self.workers.wakers().wake_all();
            }
            _ => {}
        }
    }
}
// ANCHOR_END: io

fn with_low(address: u64, low: u32) -> u64 {
    address >> 32 << 32 | u64::from(low)
}

fn with_high(address: u64, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(address as u32)
}

// ANCHOR: run_state
impl RunState for Digest {
    fn run(&self) {
        self.workers.resume();
    }

    fn quiesce(&self, deadline: Instant) -> Result<(), QuiesceError> {
        self.workers.pause(deadline)
    }

    fn reset(&self) {
        self.engine.replace(Job::default(), false);
    }
}
// ANCHOR_END: run_state

// ANCHOR: saved_state
impl SavedState for Digest {
    fn identity(&self) -> Identity {
        Identity {
            kind: "digest".to_owned(),
            version: saved::VERSION,
            config: vec![("max-blocks".to_owned(), self.model.max_blocks.get().into())],
        }
    }

    fn max_state_len(&self) -> usize {
        saved::MAX_LEN
    }

    fn save(&self) -> Result<Vec<u8>, SaveError> {
        if !self.workers.is_paused() {
            return Err(SaveError("the device is not quiescent".to_owned()));
        }
        saved::encode(Snapshot {
            job: self.engine.job(),
            has_cause: self.engine.has_cause(),
        })
    }

    fn restore(&self, state: &[u8]) -> Result<(), RestoreError> {
        if !self.workers.is_paused() {
            return Err(RestoreError("the device is not quiescent".to_owned()));
        }
        let Snapshot { job, has_cause } = saved::decode(state, self.model.max_blocks)?;
        self.engine.replace(job, has_cause);
        Ok(())
    }
}
// ANCHOR_END: saved_state
