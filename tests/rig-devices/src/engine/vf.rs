//! A virtual function of `mlx5-rig`. Its registers are described in QEMU's `docs/specs/mlx5-rig.rst`, of our series.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{Engine, Landing, Limits, Outcome, Reads};
use crate::memory::Scratch;
use crate::race::Goal;
use crate::registers::Registers;

pub(super) const LIMITS: Limits = Limits {
    unit: 8,
    depth: 64,
    pages: 300,
    race: Goal {
        writes: 200_000,
        reads: 2000,
    },
    reads: Reads::No,
    landing: Landing::AtOnce,
};

const ID: u64 = 0x00;
const STATUS: u64 = 0x04;
const ADDRESS: u64 = 0x08;
const STRIDE: u64 = 0x10;
/// The value of a job: it keeps what is written.
pub const VALUE: u64 = 0x18;
const LENGTH: u64 = 0x20;
const COUNT: u64 = 0x24;
const INTERVAL: u64 = 0x28;
const GO: u64 = 0x2c;
const WRITES: u64 = 0x30;
const FAULTS: u64 = 0x40;
const REPORT_DELAY: u64 = 0x44;
const MESSAGE_PAGES: u64 = 0x48;
const QUEUE_DEPTH: u64 = 0x4c;
/// Memory in the virtual function, of [`MEMORY_LEN`] bytes, which does nothing and is migrated.
pub const MEMORY: u64 = 0x8000;
/// Its length.
pub const MEMORY_LEN: u64 = 0x8000;

/// What the register `ID` holds.
const IS_RIG: u32 = 0x3567_724d;
const BUSY: u32 = 1;
const DONE: u32 = 2;
const STOPPED: u32 = 3;
const START: u32 = 1;

/// Bytes of one write at most.
const LONGEST_WRITE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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
pub struct Reporting {
    /// Time between the order for a report and the report.
    pub delay: Duration,
    /// Most pages in one message; 0 for as many as fit.
    pub message_pages: u32,
    /// Most messages that the driver has not taken yet; 0 for as many as its queue has room for.
    pub queue_depth: u32,
}

/// A job: writes of the same length at addresses that are equally far from each other. The value, of eight bytes and repeated over
/// the length, grows by one with each.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    /// The address of the first.
    pub start: u64,
    /// Bytes from one to the next.
    pub stride: u64,
    /// Bytes of each.
    pub len: u64,
    /// How many there are.
    pub count: u64,
    /// What the first writes.
    pub value: u64,
    /// Time before each; all at once without.
    pub interval: Option<Duration>,
}

impl Writes {
    /// A value without a byte that is zero, as long as there are not too many writes.
    pub const VALUE: u64 = u64::MAX / 3;

    /// One job that writes all of `ranges` at once, if it can.
    pub fn of(ranges: &[Range<u64>]) -> Option<Self> {
        let [first, others @ ..] = ranges else {
            return None;
        };
        let len = first.end - first.start;
        let stride = others
            .first()
            .map_or(0, |second| second.start.wrapping_sub(first.start));
        let is_even = ranges
            .windows(2)
            .all(|pair| pair[1].start.wrapping_sub(pair[0].start) == stride);
        let is_alike = ranges.iter().all(|range| range.end - range.start == len);
        (is_even && is_alike && len <= LONGEST_WRITE).then_some(Self {
            start: first.start,
            stride,
            len,
            count: ranges.len() as u64,
            value: Self::VALUE,
            interval: None,
        })
    }
}

/// Fails unless it is a virtual function of `mlx5-rig`.
///
/// # Errors
///
/// It is another one, or cannot be reached.
pub fn ensure_rig(registers: &mut dyn Registers) -> Result<()> {
    ensure!(
        registers.read32(ID)? == IS_RIG,
        "this is no virtual function of QEMU's mlx5-rig"
    );
    Ok(())
}

/// Begins a job, which goes on meanwhile if it has an interval.
///
/// # Errors
///
/// There is one already.
pub fn begin(registers: &mut dyn Registers, writes: &Writes) -> Result<()> {
    ensure!(!is_busy(registers)?, "the virtual function is still writing");
    registers.write64(ADDRESS, writes.start)?;
    registers.write64(STRIDE, writes.stride)?;
    registers.write64(VALUE, writes.value)?;
    registers.write32(LENGTH, u32::try_from(writes.len)?)?;
    registers.write32(COUNT, u32::try_from(writes.count)?)?;
    let interval = writes.interval.map_or(0, |interval| interval.as_micros());
    registers.write32(INTERVAL, u32::try_from(interval)?)?;
    registers.write32(GO, START)
}

/// Waits for the end of a job.
///
/// # Errors
///
/// It does not end.
pub fn finish(registers: &mut dyn Registers) -> Result<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match registers.read32(STATUS)? {
            DONE => return Ok(Outcome::Written),
            STOPPED => return Ok(Outcome::Stopped),
            BUSY => ensure!(Instant::now() < deadline, "the virtual function does not end"),
            status => bail!("the virtual function has not written: status {status}"),
        }
        std::thread::yield_now();
    }
}

/// Does all writes of a job.
///
/// # Errors
///
/// As [`begin`] and [`finish`].
pub fn run(registers: &mut dyn Registers, writes: &Writes) -> Result<Outcome> {
    begin(registers, writes)?;
    finish(registers)
}

/// Whether a job goes on.
///
/// # Errors
///
/// The register cannot be reached.
pub fn is_busy(registers: &mut dyn Registers) -> Result<bool> {
    Ok(registers.read32(STATUS)? == BUSY)
}

/// Writes of the job that are left to be done.
///
/// # Errors
///
/// The register cannot be reached.
pub fn left(registers: &mut dyn Registers) -> Result<u64> {
    Ok(registers.read32(COUNT)?.into())
}

/// Writes done since the last reset, by this virtual function or the one that its state was taken from.
///
/// # Errors
///
/// The register cannot be reached.
pub fn writes(registers: &mut dyn Registers) -> Result<u64> {
    registers.read64(WRITES)
}

/// Has these go wrong, and nothing else.
///
/// # Errors
///
/// The register cannot be reached.
pub fn set_faults(registers: &mut dyn Registers, faults: &[Fault]) -> Result<()> {
    registers.write32(FAULTS, faults.iter().fold(0, |all, fault| all | *fault as u32))
}

/// Says how reports are to be sent.
///
/// # Errors
///
/// A register cannot be reached.
pub fn set_reporting(registers: &mut dyn Registers, reporting: Reporting) -> Result<()> {
    registers.write32(REPORT_DELAY, u32::try_from(reporting.delay.as_micros())?)?;
    registers.write32(MESSAGE_PAGES, reporting.message_pages)?;
    registers.write32(QUEUE_DEPTH, reporting.queue_depth)
}

/// Nothing has to be kept between jobs.
pub(super) struct VfEngine;

impl Engine for VfEngine {
    fn begin(&mut self, _: &mut dyn Registers, _: &Scratch) -> Result<()> {
        Ok(())
    }

    fn write(&mut self, registers: &mut dyn Registers, ranges: &[Range<u64>]) -> Result<Outcome> {
        if let Some(writes) = Writes::of(ranges) {
            return run(registers, &writes);
        }
        let mut outcome = Outcome::Written;
        for piece in ranges.iter().flat_map(pieces) {
            let piece = Writes::of(&[piece]).expect("a piece can be written");
            if run(registers, &piece)? == Outcome::Stopped {
                outcome = Outcome::Stopped;
            }
        }
        Ok(outcome)
    }

    fn read(&mut self, _: &mut dyn Registers, _: Range<u64>) -> Result<()> {
        bail!("a virtual function of mlx5-rig does not read memory")
    }
}

/// What can be written at a time.
fn pieces(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    range
        .clone()
        .step_by(LONGEST_WRITE as usize)
        .map(move |start| start..(start + LONGEST_WRITE).min(end))
}

#[cfg(test)]
mod tests {
    use super::Writes;

    #[test]
    fn what_is_evenly_spaced_is_one_job() {
        let writes = Writes::of(&[8..16, 4104..4112, 8200..8208]).expect("one job");
        assert_eq!(
            (writes.start, writes.stride, writes.len, writes.count),
            (8, 4096, 8, 3)
        );
        assert!(Writes::of(&[8..16, 4104..4112, 8208..8216]).is_none());
        assert!(Writes::of(&[8..16, 4104..4108]).is_none());
        assert!(Writes::of(&[]).is_none());
        #[expect(clippy::single_range_in_vec_init, reason = "one write is meant")]
        let one = Writes::of(&[0..4]);
        assert_eq!(one.map(|one| one.count), Some(1));
    }
}
