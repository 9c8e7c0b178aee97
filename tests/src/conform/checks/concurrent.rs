//! Devices that write while they are asked what they wrote. The oracle keeps a copy of guest memory that is brought up to date
//! with the pages of each report: in the end it must be guest memory, to the byte.

use std::sync::Arc;
use std::time::Duration;

use crate::conform::check::{Check, Checked, Source, fail};
use crate::conform::drive::Driven;
use crate::conform::needs;
use crate::conform::probe::Probe;
use crate::migrate::{LoggingPlan, Transfer};
use crate::oracle::{Depth, Oracle};
use crate::vmm::{GuestMemory, PAGE_SIZE, PageSet, Vm};
use crate::wire::MigState;

const LOG: Source = Source::Uapi("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT");
const STOP: Source = Source::Uapi("enum vfio_device_mig_state: STOP");

/// Reports while the devices write.
const PASSES: u32 = 12;

/// Pages that each device writes between two reports, at least.
const WRITES: u64 = 50;

/// How long a stopped device is looked at: one that goes on has to get time for that on a busy machine.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "concurrent/no-write-is-lost",
            LOG,
            "A device that writes flat out while its log is read loses no page.",
            |probe| watch(&mut Driven::one(probe)?, PAGE_SIZE),
        ),
        Check::new(
            "concurrent/no-write-is-lost-in-large-pages",
            LOG,
            "The same where the log is read in pages of 64 KiB and 2 MiB.",
            |probe| {
                for page_size in [1 << 16, 1 << 21] {
                    watch(&mut Driven::one(probe)?, page_size)?;
                }
                Ok(())
            },
        ),
        Check::new(
            "concurrent/no-write-of-several-devices-is-lost",
            LOG,
            "The same with every device of the VM writing.",
            |probe| watch(&mut Driven::all(probe)?, PAGE_SIZE),
        ),
        Check::new(
            "concurrent/a-stopped-device-writes-nothing",
            STOP,
            "From the reply to STOP on the device writes no memory: a report then is the last that is needed.",
            stopped,
        ),
    ]
}

/// A copy of guest memory, kept by what is reported.
struct Watch {
    oracle: Oracle,
    copy: Arc<GuestMemory>,
    plan: LoggingPlan,
    pass: u32,
}

impl Watch {
    fn start(vm: &mut Vm, page_size: u64) -> Checked<Self> {
        let watch = Self {
            oracle: Oracle::new(vm.memory(), Depth::Full),
            copy: vm.memory().same_layout()?,
            plan: LoggingPlan::new(vm, page_size)?,
            pass: 0,
        };
        watch.plan.start(vm)?;
        Ok(watch)
    }

    /// Reads the log and copies what it names; the first time everything.
    fn pass(&mut self, vm: &mut Vm) -> Checked {
        let mut pages = self.plan.collect(vm)?;
        if self.pass == 0 {
            pages = PageSet::all(vm.memory());
        }
        self.oracle.reported(&pages);
        Transfer::copy(vm.memory(), &self.copy, &pages, &mut self.oracle)?;
        self.oracle.inspect(vm.memory(), self.pass, &pages)?;
        self.pass += 1;
        Ok(())
    }

    /// The last report, when nothing writes any more, and what came of it.
    fn judge(mut self, vm: &mut Vm) -> Checked {
        self.pass(vm)?;
        self.verdict(vm)
    }

    /// What came of the reports so far.
    fn verdict(self, vm: &mut Vm) -> Checked {
        let verdict = self.oracle.verdict(vm.memory(), &self.copy, self.pass)?;
        match verdict.lost.as_slice() {
            [] => Ok(()),
            [first, ..] => fail(format!(
                "{} pages are lost, for example: {first}",
                verdict.lost.len()
            )),
        }
    }
}

/// Runs the devices' generators and reads their logs.
fn run(driven: &mut Driven, page_size: u64) -> Checked<Watch> {
    for device in 0..driven.vm().device_count() {
        needs::logging(driven.client(device))?;
    }
    driven.start_generators()?;
    let mut watch = Watch::start(driven.vm(), page_size)?;
    for _ in 0..PASSES {
        driven.await_writes(WRITES)?;
        watch.pass(driven.vm())?;
    }
    driven.await_writes(WRITES)?;
    Ok(watch)
}

fn watch(driven: &mut Driven, page_size: u64) -> Checked {
    let watch = run(driven, page_size)?;
    driven.stop_generators()?;
    watch.judge(driven.vm())
}

fn stopped(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::migration(driven.client(0))?;
    let mut watch = run(&mut driven, PAGE_SIZE)?;
    driven.client(0).set_mig_state(MigState::Stop)?;
    watch.pass(driven.vm())?;
    std::thread::sleep(LOOK);
    watch.verdict(driven.vm())
}
