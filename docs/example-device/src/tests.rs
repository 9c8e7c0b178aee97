//! What a driver may rely on, one promise a test. Guest memory and interrupts are real ones; what is missing is the wire.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail::device::{Bar, Device, DeviceModel};
use pagetrail::guest::testing::Guest;
use pagetrail::irq::{Interrupts, Irq};

use crate::DigestModel;
use crate::engine::Job;
use crate::saved::{self, Snapshot};

const MEMORY: u64 = 20 << 20;
/// Blocks that are read: the rest of memory.
const SOURCE: u64 = 4 << 20;
const BLOCKS: u32 = 4096;
/// Where the table is written.
const TABLE: u64 = 1 << 20;

const MODEL: DigestModel = DigestModel {
    max_blocks: NonZeroU32::new(BLOCKS).unwrap(),
};

/// A device, its memory and its interrupts.
struct Rig {
    device: Arc<dyn Device>,
    guest: Guest,
    irq: Irq,
}

impl Rig {
    /// A running device, and noise to read.
    fn new() -> Self {
        let guest = Guest::new(MEMORY);
        let noise: Vec<u8> = (0..MEMORY - SOURCE).map(|at| ((at * at) >> 7) as u8).collect();
        guest.write(SOURCE, &noise);
        let rig = Self::quiescent(guest);
        rig.device.run();
        rig
    }

    fn quiescent(guest: Guest) -> Self {
        let irq = Interrupts::new(MODEL.spec().irqs).irq();
        let built = MODEL.build(guest.dma(), irq.clone()).expect("a thread");
        Self {
            device: built.device,
            guest,
            irq,
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device
            .read(Bar::Bar0, offset, &mut data)
            .expect("a register");
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        let data = value.to_le_bytes();
        self.device.write(Bar::Bar0, offset, &data).expect("a register");
    }

    fn begin(&self, table: u64, blocks: u32) {
        self.write(0x10, SOURCE as u32);
        self.write(0x14, (SOURCE >> 32) as u32);
        self.write(0x18, table as u32);
        self.write(0x1c, (table >> 32) as u32);
        self.write(0x20, blocks);
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: did not happen");
            std::thread::yield_now();
        }
    }

    fn quiesce(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        self.device.quiesce(deadline).expect("steps are short");
    }

    /// Goes on with another device, on a copy of the memory.
    fn migrate(&self) -> Self {
        self.quiesce();
        self.guest.suspend();
        let state = self.device.save().expect("a state");
        assert!(state.len() <= self.device.max_state_len());
        let dest = Self::quiescent(self.guest.duplicate());
        dest.device.restore(&state).expect("the state of an equal device");
        dest.device.run();
        dest
    }

    fn assert_table(&self, job: u32) {
        for block in 0..BLOCKS {
            let mut bytes = [0; 4096];
            self.guest.read(SOURCE + u64::from(block) * 4096, &mut bytes);
            let mut entry = [0; 8];
            self.guest.read(TABLE + u64::from(block) * 8, &mut entry);
            let expected = u64::from(crc32c::crc32c(&bytes)) | u64::from(job) << 32;
            assert_eq!(u64::from_le_bytes(entry), expected, "block {block}");
        }
    }
}

fn has_ended(rig: &Rig) -> bool {
    rig.read(0x08) == 1
}

#[test]
fn a_job_writes_the_digest_of_every_block_and_raises_its_cause() {
    let rig = Rig::new();
    for job in 1..=2 {
        rig.begin(TABLE, BLOCKS);
        rig.wait_until("the end", has_ended);
        assert_eq!((rig.read(0x04), rig.read(0x24), rig.read(0x28)), (0, BLOCKS, job));
        rig.assert_table(job);
        rig.write(0x08, 1);
        assert_eq!((rig.read(0x08), rig.irq.pending()), (0, 0));
    }
}

#[test]
fn every_page_of_the_table_is_tracked_and_no_other() {
    let rig = Rig::new();
    rig.guest.start_tracking();
    rig.begin(TABLE, BLOCKS);
    rig.wait_until("the end", has_ended);
    let pages: Vec<u64> = (0..8).map(|page| TABLE + page * 4096).collect();
    assert_eq!(rig.guest.take_dirty(), pages);
}

#[test]
fn registers_are_32_bits_wide_and_keep_what_a_driver_writes() {
    let rig = Rig::new();
    for (offset, len) in [(0, 1), (0, 2), (0, 8), (2, 4), (1, 4)] {
        let device = &rig.device;
        device
            .read(Bar::Bar0, offset, &mut vec![0; len])
            .expect_err("width or alignment");
        device
            .write(Bar::Bar0, offset, &vec![0; len])
            .expect_err("width or alignment");
    }
    for offset in [0x10, 0x14, 0x18, 0x1c] {
        rig.write(offset, 0x1234_5678 + offset as u32);
    }
    for offset in [0x10, 0x14, 0x18, 0x1c] {
        assert_eq!(rig.read(offset), 0x1234_5678 + offset as u32);
    }
    assert_eq!(
        (rig.read(0), rig.read(0x0c), rig.read(0x40)),
        (0x5447_4944, BLOCKS, 0)
    );
}

#[test]
fn a_job_that_cannot_be_done_fails_and_says_so() {
    let rig = Rig::new();
    for (table, blocks) in [(TABLE, 0), (TABLE, BLOCKS + 1), (MEMORY, 1), (u64::MAX - 4095, 1)] {
        rig.begin(table, blocks);
        rig.wait_until("the end", has_ended);
        assert_eq!(rig.read(0x04), 2, "{table:#x}, {blocks} blocks");
        rig.write(0x08, 1);
    }
    rig.begin(TABLE, BLOCKS);
    rig.wait_until("the next job's end", has_ended);
    rig.assert_table(5);
}

/// A device that is quiescent in the middle of a job.
fn in_the_middle() -> Rig {
    let caught = std::iter::repeat_with(|| {
        let rig = Rig::new();
        rig.begin(TABLE, BLOCKS);
        rig.wait_until("a first block", |rig| rig.read(0x24) > 0);
        rig.quiesce();
        rig
    })
    .take(100)
    .find(|rig| rig.read(0x24) < BLOCKS);
    caught.expect("one of a hundred is caught in the middle")
}

#[test]
fn a_job_goes_on_at_the_destination_where_it_stopped() {
    let source = in_the_middle();
    let dest = source.migrate();
    dest.wait_until("the end", has_ended);
    dest.assert_table(1);
    assert_eq!(source.read(0x04), 1, "the source is still where it was");
}

#[test]
fn progress_comes_from_the_state_and_nowhere_else() {
    let rig = in_the_middle();
    let ahead = Job {
        done: BLOCKS - 1,
        ..busy()
    };
    rig.device.restore(&state(ahead)).expect("a state that could be");
    rig.guest.write(TABLE, &vec![0; 8 * BLOCKS as usize]);
    rig.device.run();
    rig.wait_until("the end", has_ended);
    let mut entry = [0; 8];
    rig.guest.read(TABLE + u64::from(BLOCKS - 2) * 8, &mut entry);
    assert_eq!(entry, [0; 8], "a wrong state shows in the table");
}

/// A job in the middle.
fn busy() -> Job {
    Job {
        source: SOURCE,
        table: TABLE,
        number: 1,
        blocks: BLOCKS,
        done: 7,
        failed: false,
    }
}

fn state(job: Job) -> Vec<u8> {
    let has_cause = false;
    saved::encode(Snapshot { job, has_cause }).expect("bytes")
}

#[test]
fn a_state_that_no_device_was_in_is_refused_and_changes_nothing() {
    let rig = Rig::quiescent(Guest::new(MEMORY));
    rig.device.restore(&state(busy())).expect("a state that could be");
    let before = rig.device.save();
    let (too_many, too_far, failed_at_the_end) = (
        Job {
            blocks: BLOCKS + 1,
            ..busy()
        },
        Job {
            done: BLOCKS + 1,
            ..busy()
        },
        Job {
            done: BLOCKS,
            failed: true,
            ..busy()
        },
    );
    for job in [too_many, too_far, failed_at_the_end] {
        rig.device.restore(&state(job)).expect_err("refused");
    }
    let good = state(busy());
    for len in 0..good.len() {
        rig.device.restore(&good[..len]).expect_err("truncated");
    }
    rig.device
        .restore(&[&good[..], &[0]].concat())
        .expect_err("a byte too many");
    assert_eq!(rig.device.save(), before);
}

#[test]
fn a_running_device_neither_saves_nor_restores() {
    let rig = Rig::new();
    rig.device.save().expect_err("it runs");
    rig.device.restore(&state(busy())).expect_err("it runs");
}

#[test]
fn a_cause_that_the_driver_has_not_seen_migrates() {
    let rig = Rig::new();
    rig.begin(TABLE, 1);
    rig.wait_until("the end", has_ended);
    let dest = rig.migrate();
    assert_eq!(
        (dest.read(0x08), dest.irq.pending()),
        (1, 1),
        "for the server to signal"
    );
}

#[test]
fn a_reset_ends_the_job_and_its_cause() {
    let rig = in_the_middle();
    rig.device.reset();
    rig.device.run();
    for register in (0x04..0x2c).step_by(4).filter(|register| *register != 0x0c) {
        assert_eq!(rig.read(register), 0, "register {register:#x}");
    }
    rig.begin(TABLE, BLOCKS);
    rig.wait_until("the end", has_ended);
    rig.assert_table(1);
}

/// `docs/src/saved-state.md`, rule 5.
#[test]
fn a_state_of_version_1_is_taken() {
    let rig = Rig::quiescent(Guest::new(MEMORY));
    let kept = include_bytes!("../tests/saved-v1.cbor");
    rig.device.restore(kept).expect("version 1");
    assert_eq!(rig.device.save().as_deref(), Ok(&kept[..]));
    assert_eq!((rig.read(0x24), rig.read(0x28)), (7, 1));
}
