//! What a test asks for.

use std::fs::OpenOptions;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use super::boot;
use super::device::Device;
use super::mapped::Mapped;
use super::pci::Function;
use super::registers::Registers;
use super::worker::Worker;
use crate::generator::Generator;
use crate::memory::PAGE_SIZE;
use crate::protocol::{Answer, Command, DeviceReport, GeneratorReport, Report};

/// Devices that share the window in equal parts.
const MAX_DEVICES: u64 = 4;

/// Who has a device's rings.
enum Rings {
    Idle(Box<Device>),
    Working(Worker),
    /// In between.
    Moving,
}

/// A device with all that is known of it.
struct Slot {
    function: Function,
    part: u64,
    /// The generator's window.
    window: Range<u64>,
    rings: Rings,
    registers: Registers,
    batches: Arc<AtomicU64>,
    generator: Option<GeneratorReport>,
    /// As of the last standstill.
    report: DeviceReport,
    errors: Vec<String>,
}

/// The agent.
pub(super) struct Agent {
    window: Range<u64>,
    memory: Mapped,
    boot: String,
    slots: Vec<Slot>,
}

impl Agent {
    /// An agent whose devices may use `window`, physical memory that the kernel leaves alone.
    pub(super) fn new(window: Range<u64>) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
        let length = (window.end - window.start) as usize;
        let memory = Mapped::new(&file, window.start, length, window.start).context("mapping the window")?;
        Ok(Self {
            window,
            memory,
            boot: boot::boot_id()?,
            slots: Vec::new(),
        })
    }

    /// Runs a command.
    pub(super) fn run(&mut self, command: &Command) -> Answer {
        match self.try_run(command) {
            Ok(()) => Answer::Report(self.report()),
            Err(error) => Answer::Error(format!("{error:#}")),
        }
    }

    fn try_run(&mut self, command: &Command) -> Result<()> {
        match *command {
            Command::Hello => self.find_devices()?,
            Command::StartWork => self.slots.iter_mut().for_each(Slot::start_work),
            Command::StartGenerators { rate, limit, seed } => {
                self.each(|slot| slot.start_generator(rate, limit, seed));
            }
            Command::Report => self.each(Slot::look),
            Command::Check => self.each(Slot::check),
            Command::Hold => self.each(|slot| slot.with_device(Device::hold)),
            Command::Release => self.each(|slot| slot.with_device(Device::release)),
            Command::Reset => self.each(Slot::reset),
            Command::Reboot => boot::reboot()?,
        }
        Ok(())
    }

    /// Does something with each device; what goes wrong is kept with it.
    fn each(&mut self, mut action: impl FnMut(&mut Slot) -> Result<()>) {
        for slot in &mut self.slots {
            if let Err(error) = action(slot) {
                slot.errors.push(format!("{error:#}"));
            }
        }
    }

    fn find_devices(&mut self) -> Result<()> {
        let functions = Function::all()?;
        self.slots.retain(|slot| functions.contains(&slot.function));
        for function in functions {
            if self.slots.iter().any(|slot| slot.function == function) {
                continue;
            }
            let slot = self.open(function.clone());
            self.slots
                .push(slot.with_context(|| function.address().to_owned())?);
        }
        Ok(())
    }

    fn open(&self, function: Function) -> Result<Slot> {
        let free = |part: &u64| self.slots.iter().all(|slot| slot.part != *part);
        let Some(part) = (0..MAX_DEVICES).find(free) else {
            bail!("more than {MAX_DEVICES} devices");
        };
        let size = (self.window.end - self.window.start) / MAX_DEVICES;
        let start = self.window.start + part * size;
        let mut device = Device::open(function.clone(), &self.memory, start..start + size, part + 1)?;
        Ok(Slot {
            function,
            part,
            window: device.window(),
            registers: device.registers(),
            batches: device.batches(),
            report: device.report()?,
            rings: Rings::Idle(Box::new(device)),
            generator: None,
            errors: Vec::new(),
        })
    }

    fn report(&self) -> Report {
        Report {
            boot: self.boot.clone(),
            devices: self.slots.iter().map(Slot::report).collect(),
        }
    }
}

impl Slot {
    fn start_work(&mut self) {
        self.rings = match std::mem::replace(&mut self.rings, Rings::Moving) {
            Rings::Idle(device) => Rings::Working(Worker::start(*device)),
            other => other,
        };
    }

    /// Takes the rings back from the worker.
    fn stop_work(&mut self) -> &mut Device {
        self.rings = match std::mem::replace(&mut self.rings, Rings::Moving) {
            Rings::Working(worker) => {
                let (device, result) = worker.stop();
                if let Err(error) = result {
                    self.errors.push(format!("{error:#}"));
                }
                Rings::Idle(Box::new(device))
            }
            other => other,
        };
        match &mut self.rings {
            Rings::Idle(device) => device,
            Rings::Working(_) | Rings::Moving => unreachable!("the worker has just been stopped"),
        }
    }

    fn with_device(&mut self, action: impl FnOnce(&mut Device) -> Result<()>) -> Result<()> {
        let device = self.stop_work();
        action(device)?;
        self.report = device.report()?;
        Ok(())
    }

    fn start_generator(&mut self, rate: u64, limit: u64, seed: u64) -> Result<()> {
        if self.generator.as_ref().is_some_and(|running| running.enabled) {
            return Ok(());
        }
        let generator = Generator {
            base: self.window.start,
            pages: (self.window.end - self.window.start) / PAGE_SIZE,
            seed: seed + self.part,
            rate,
            limit,
        };
        self.registers.start_generator(&generator)?;
        self.generator = Some(GeneratorReport {
            generator,
            positions: self.registers.positions()?,
            enabled: true,
        });
        Ok(())
    }

    fn stop_generator(&mut self) -> Result<()> {
        let Some(running) = &mut self.generator else {
            return Ok(());
        };
        if running.enabled {
            self.registers.stop_generator()?;
            running.positions = self.registers.positions()?;
            running.enabled = false;
        }
        Ok(())
    }

    /// Reads what can be read while everything goes on.
    fn look(&mut self) -> Result<()> {
        self.registers.healthy()?;
        if let Some(running) = &mut self.generator
            && running.enabled
        {
            running.positions = self.registers.positions()?;
        }
        if let Rings::Idle(device) = &mut self.rings {
            self.report = device.report()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.stop_generator()?;
        let generator = self.generator.clone();
        self.with_device(|device| device.check(generator.as_ref()))
    }

    fn reset(&mut self) -> Result<()> {
        self.stop_generator()?;
        let works = matches!(self.rings, Rings::Working(_));
        self.with_device(Device::reset)?;
        // What the window holds is known by the positions before the reset.
        if works {
            self.start_work();
        }
        Ok(())
    }

    fn report(&self) -> DeviceReport {
        DeviceReport {
            generator: self.generator.clone(),
            batches: self.batches.load(Ordering::Relaxed),
            errors: self.errors.clone(),
            ..self.report.clone()
        }
    }
}
