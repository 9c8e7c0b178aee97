//! A VM under test, and what must hold in it.

use std::time::Duration;

use pagetrail_guest::protocol::{Command, DeviceReport, Report};
use pagetrail_guest::{Memory, check_window};

use super::failure::{Failure, Result, hold};
use crate::qemu::{Agent, GuestRam, Machine};

/// How long a guest may take to boot.
const BOOT_LIMIT: Duration = Duration::from_mins(3);

/// How long QEMU may take to do something that needs no device.
const SOON: Duration = Duration::from_secs(30);

/// How much a generator is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// As fast as it can.
    FlatOut,
    /// So many pages per second and device.
    Pages(u64),
}

/// A VM whose guest runs, with the agent in it.
pub(super) struct Vm {
    machine: Machine,
    agent: Agent,
    /// The boot that the guest is in.
    boot: String,
    devices: usize,
    /// Migrations since the devices were set up: after each, an interrupt may have come twice.
    hops: u64,
    /// The generators' seed; another one for each start.
    seed: u64,
}

impl Vm {
    /// Waits for a guest that boots and has all its devices set up.
    pub(super) fn booted(machine: Machine, devices: usize) -> Result<Self> {
        let mut agent = machine.agent()?;
        let boot = agent.hello(BOOT_LIMIT)?.boot;
        let mut vm = Self {
            machine,
            agent,
            boot,
            devices,
            hops: 0,
            seed: 1,
        };
        vm.await_devices(devices)?;
        Ok(vm)
    }

    /// The QEMU it is in.
    pub(super) fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Waits until the guest has exactly so many devices: plugging takes a while.
    pub(super) fn await_devices(&mut self, devices: usize) -> Result {
        let deadline = std::time::Instant::now() + BOOT_LIMIT;
        loop {
            let report = self.agent.hello(BOOT_LIMIT)?;
            let found = report.devices.len();
            if found == devices {
                self.devices = devices;
                return self.expect_well(&report);
            }
            hold(std::time::Instant::now() < deadline, || {
                format!("the guest must have {devices} devices, has {found}")
            })?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Keeps rings and generators of all devices at work.
    pub(super) fn start_load(&mut self, rate: Rate) -> Result {
        self.start_generators(rate)?;
        self.run(Command::StartWork).map(drop)
    }

    /// Starts the generators.
    pub(super) fn start_generators(&mut self, rate: Rate) -> Result {
        let rate = match rate {
            Rate::FlatOut => 0,
            Rate::Pages(pages) => pages,
        };
        self.seed += 100;
        let command = Command::StartGenerators {
            rate,
            limit: 0,
            seed: self.seed,
        };
        self.run(command).map(drop)
    }

    /// Has the agent do something in which nothing may go wrong.
    pub(super) fn run(&mut self, command: Command) -> Result<Report> {
        let report = self.agent.run(command)?;
        self.expect_well(&report)?;
        Ok(report)
    }

    /// Asks how things are, whatever that is: devices may be dead.
    pub(super) fn look(&mut self) -> Result<Report> {
        let report = self.agent.run(Command::Report)?;
        self.expect_boot(&report)?;
        Ok(report)
    }

    /// Waits until every device has done more work than it has now.
    pub(super) fn await_progress(&mut self) -> Result {
        let before = self.run(Command::Report)?;
        let deadline = std::time::Instant::now() + BOOT_LIMIT;
        loop {
            let now = self.run(Command::Report)?;
            let mut pairs = before.devices.iter().zip(&now.devices);
            if pairs.all(|(before, now)| work_done(now) > work_done(before)) {
                return Ok(());
            }
            hold(std::time::Instant::now() < deadline, || {
                format!("a device makes no progress: {now:?}")
            })?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Resets the machine and waits until the guest is up again.
    pub(super) fn reboot(&mut self) -> Result {
        self.agent.reboot()?;
        let deadline = std::time::Instant::now() + BOOT_LIMIT;
        loop {
            let report = self.agent.hello(BOOT_LIMIT)?;
            if report.boot != self.boot {
                self.boot = report.boot;
                self.hops = 0;
                return self.await_devices(self.devices);
            }
            hold(std::time::Instant::now() < deadline, || {
                "the guest does not reboot".to_owned()
            })?;
        }
    }

    /// Brings the guest's work to a standstill and looks at every byte that its devices wrote, from inside and from outside.
    pub(super) fn check(&mut self) -> Result<Report> {
        let report = self.run(Command::Check)?;
        for device in &report.devices {
            check_memory(self.machine.ram(), device)?;
            self.check_interrupts(device)?;
        }
        Ok(report)
    }

    /// Each cause that was acknowledged came with an interrupt, and no interrupt came without one, save those that a migration
    /// repeats.
    fn check_interrupts(&self, device: &DeviceReport) -> Result {
        for (vector, (taken, acknowledged)) in device.interrupts.iter().zip(device.acknowledged).enumerate() {
            let most = acknowledged + self.hops;
            hold((acknowledged..=most).contains(taken), || {
                format!(
                    "{}: vector {vector}: {acknowledged} causes acknowledged, {taken} interrupts taken, {} migrations",
                    device.address, self.hops
                )
            })?;
        }
        Ok(())
    }

    fn expect_well(&self, report: &Report) -> Result {
        self.expect_boot(report)?;
        for device in &report.devices {
            if let Some(error) = device.errors.first() {
                return Err(Failure::Guest(format!("{}: {error}", device.address)));
            }
        }
        hold(report.devices.len() == self.devices, || {
            format!(
                "the guest must have {} devices, has {}",
                self.devices,
                report.devices.len()
            )
        })
    }

    fn expect_boot(&self, report: &Report) -> Result {
        hold(report.boot == self.boot, || "the guest has rebooted".to_owned())
    }

    /// The guest goes on in another QEMU, which stands still until now. Returns the one it was in.
    pub(super) fn move_to(&mut self, machine: Machine) -> Result<Machine> {
        let old = std::mem::replace(&mut self.machine, machine);
        self.agent = self.machine.agent()?;
        self.hops += 1;
        self.machine.resume()?;
        self.machine.await_run_state("running", SOON)?;
        let report = self.agent.hello(BOOT_LIMIT)?;
        self.expect_well(&report)?;
        Ok(old)
    }

    /// The VM must run on here, with everything at work.
    pub(super) fn expect_runs_on(&mut self) -> Result {
        self.machine.await_run_state("running", SOON)?;
        self.await_progress()
    }

    /// Ends it in order.
    pub(super) fn quit(self) -> Result {
        Ok(self.machine.quit()?)
    }
}

/// Compares what a device wrote with what it must have written, from outside of the guest. Nothing may be at work.
fn check_memory(ram: &GuestRam, device: &DeviceReport) -> Result {
    let (base, size, crc) = device.arena;
    let mut arena = vec![0; size as usize];
    ram.read(base, &mut arena)?;
    hold(crc32c::crc32c(&arena) == crc, || {
        format!("{}: the arena is not what the guest says", device.address)
    })?;
    let Some(running) = &device.generator else {
        return Ok(());
    };
    let wrong = check_window(ram, &running.generator, &running.positions)?;
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Broken(format!(
            "{}: {} pages of the generator are wrong, first: {first}",
            device.address,
            wrong.len()
        ))),
    }
}

/// Something that grows as long as the device works.
fn work_done(device: &DeviceReport) -> u64 {
    let writes = device
        .generator
        .iter()
        .flat_map(|running| &running.positions)
        .sum::<u64>();
    device.batches + writes
}
