//! A virtual function in QEMU: `-device vfio-user-pci` in front of `pagetrail vfio`, and QEMU's own migration.
//!
//! The VMs have no processor, and what a driver would do is done by QEMU's test protocol. All else is as it is: the client of the device
//! is QEMU, its memory QEMU's, and what is migrated, when and how often, QEMU's choice.
//!
//! The device's job writes a word of its own into one page after the other, and is under way when the VM moves. Afterwards the destination's
//! memory has each word, or a page was lost.

mod machine;
mod qtest;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::vf::{self, Fault, Writes};
use pagetrail_rig_devices::{MIB, Outcome, PAGE, Registers};

use crate::served::Served;
use crate::subject::{Subject, Tracker};
use machine::{Begin, FAST, MEMORY, Machine};

/// A promise of a pair of devices, each in a VM of a QEMU, and how it is checked.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Path, &Subject, &Subject) -> Result<()>,
}

/// All checks of devices that `tracker` tracks.
pub(crate) fn all(tracker: Tracker) -> Vec<Check> {
    let check = |name, run| Check { name, run };
    let mut checks = vec![
        check(
            "a VM migrates with it in mid-job, and nothing is lost",
            |qemu, from, to| migrates(qemu, from, to, &[]),
        ),
        check(
            "a migration of its VM that is cancelled leaves it at work, and can be made again",
            cancelled,
        ),
    ];
    if tracker == Tracker::Device {
        checks.push(check(
            "control: a page that the tracker drops is missed in its VM",
            drops_pages,
        ));
    }
    checks
}

const PATIENCE: Duration = Duration::from_mins(1);
/// Where the job's pages are: above what a PC keeps for itself.
const FIRST: u64 = 16 * MIB;
const PAGES: u64 = (MEMORY - FIRST) / PAGE;
/// So long that the job outlives any migration.
const INTERVAL: Duration = Duration::from_millis(2);
/// Bytes in a second, of which the VM has many more.
const SLOW: u64 = 4 * MIB;
/// Where each page has its word of the first round and of the second.
const ROUNDS: [u64; 2] = [0, 8];

/// Two VMs, one of which has the device at work.
struct Vms {
    source: Machine,
    dest: Machine,
    // Go last: the machines are their clients.
    served: [Served; 2],
}

impl Vms {
    fn new(qemu: &Path, from: &Subject, to: &Subject) -> Result<Self> {
        let served = [Served::vfio(from, &[])?, Served::vfio(to, &[])?];
        let start = |side: usize, begin| {
            let started = Machine::start(qemu, &served[side].sockets[0], begin);
            served[side].explain(started)
        };
        let mut vms = Self {
            source: start(0, Begin::Running)?,
            dest: start(1, Begin::Waiting)?,
            served,
        };
        let begun = vms.begin_work();
        vms.explain(begun)?;
        Ok(vms)
    }

    /// The first round at once, and the second one for a while.
    fn begin_work(&mut self) -> Result<()> {
        self.source.enable_device()?;
        let registers = &mut self.source.registers();
        vf::ensure_rig(registers)?;
        let outcome = vf::run(registers, &round(ROUNDS[0], None))?;
        ensure!(outcome == Outcome::Written, "the IOMMU stopped the job");
        for word in state() {
            registers.write32(word, mark(word))?;
        }
        vf::begin(registers, &round(ROUNDS[1], Some(INTERVAL)))
    }

    /// Checks the destination: the device goes on where it was, and all that it wrote is there.
    fn check_arrival(&mut self) -> Result<()> {
        let registers = &mut self.dest.registers();
        let left = vf::left(registers)?;
        ensure!(
            0 < left && left < PAGES,
            "{left} writes are left: it is not in mid-job"
        );
        for word in state() {
            let found = registers.read32(word)?;
            ensure!(found == mark(word), "its memory has {found:#x} at {word:#x}");
        }
        let deadline = Instant::now() + PATIENCE;
        while vf::left(registers)? + 100 > left {
            ensure!(Instant::now() < deadline, "the job does not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_round(ROUNDS[0], PAGES)?;
        self.check_round(ROUNDS[1], PAGES - left)?;
        println!(
            "# {} pages of the job were written before the VM arrived, {left} after",
            PAGES - left
        );
        Ok(())
    }

    /// Checks the first `pages` of a round of the job in the destination's memory.
    fn check_round(&self, offset: u64, pages: u64) -> Result<()> {
        let memory = self.dest.memory()?;
        for page in 0..pages {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, FIRST + page * PAGE + offset)?;
            let (found, expected) = (u64::from_le_bytes(word), value_of(page, offset));
            ensure!(
                found == expected,
                "page {page} has {found:#x} instead of {expected:#x}: it was lost"
            );
        }
        Ok(())
    }

    fn explain<T>(&self, result: Result<T>) -> Result<T> {
        let result = self.source.explain(self.dest.explain(result));
        self.served[0].explain(self.served[1].explain(result))
    }
}

/// One round of the job: a word of each page, at `offset` in it.
fn round(offset: u64, interval: Option<Duration>) -> Writes {
    Writes {
        start: FIRST + offset,
        stride: PAGE,
        len: 8,
        count: PAGES,
        value: value_of(0, offset),
        interval,
    }
}

/// What the write of a round to `page` leaves.
fn value_of(page: u64, offset: u64) -> u64 {
    0x5eed_0000_0000 + (offset << 32) + page
}

/// Words of the device's own memory, and what they are given.
fn state() -> impl Iterator<Item = u64> {
    (vf::MEMORY..vf::MEMORY + vf::MEMORY_LEN).step_by(1024)
}

fn mark(word: u64) -> u32 {
    (word as u32).wrapping_mul(0x9e37_79b9)
}

/// Migrates, with faults of the source.
fn migrates(qemu: &Path, from: &Subject, to: &Subject, faults: &[Fault]) -> Result<()> {
    let mut vms = Vms::new(qemu, from, to)?;
    let mut check = || {
        vf::set_faults(&mut vms.source.registers(), faults)?;
        vms.source.begin_migration(&mut vms.dest)?;
        let info = vms.source.await_migration("completed")?;
        let ram = info.ram.context("no figures")?;
        println!(
            "# {} passes over memory, downtime {} ms",
            ram.dirty_sync_count,
            info.downtime.unwrap_or_default()
        );
        vms.check_arrival()
    };
    let result = check();
    vms.explain(result)
}

fn cancelled(qemu: &Path, from: &Subject, to: &Subject) -> Result<()> {
    let mut vms = Vms::new(qemu, from, to)?;
    let mut check = || {
        vms.source.limit_bandwidth(SLOW)?;
        vms.source.begin_migration(&mut vms.dest)?;
        vms.source.await_pages()?;
        vms.source.cancel_migration()?;
        vms.source.await_migration("cancelled")?;
        vms.source.limit_bandwidth(FAST)?;
        vms.dest.kill()?;
        vms.dest = Machine::start(qemu, &vms.served[1].sockets[0], Begin::Waiting)?;
        ensure!(vf::is_busy(&mut vms.source.registers())?, "the job has stopped");
        vms.source.begin_migration(&mut vms.dest)?;
        vms.source.await_migration("completed")?;
        vms.check_arrival()
    };
    let result = check();
    vms.explain(result)
}

fn drops_pages(qemu: &Path, from: &Subject, to: &Subject) -> Result<()> {
    let found = migrates(qemu, from, to, &[Fault::DropPage]).err();
    let found = format!("{:#}", found.context("a lost page is not missed")?);
    ensure!(found.contains("it was lost"), "{found}");
    Ok(())
}
