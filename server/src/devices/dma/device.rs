//! The device traits: registers, running and stopping, saving and restoring.
//!
//! Whatever changes what the workers see (`CONTROL`, reset, restore) is done while they are paused.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Lanes;
use super::doorbell::{Doorbell, Doorbells};
use super::engine::Engine;
use super::events::{EventState, Events};
use super::generator::{Generator, GeneratorConfig, GeneratorMode, GeneratorState};
use super::registers::{Register, Target};
use super::ring::{Ring, RingConfig, RingMode, RingState};
use super::saved::{self, Snapshot};
use super::spec::{self, Causes, Control, Status};
use crate::device::{
    Bar, DeviceIo, Identity, IoError, QuiesceError, RestoreError, RunState, SaveError, SavedState, Workers,
};
use crate::guest::Dma;
use crate::irq::Irq;

/// How long a write to `CONTROL` waits for a step to end. Steps take microseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(1);

/// A `dma` device.
pub(super) struct DmaDevice {
    lanes: Lanes,
    engine: Arc<Engine>,
    workers: Workers,
    /// The workers did not pause when they had to: nothing holds before a reset.
    failed: AtomicBool,
    /// Held by whoever writes registers or changes the run state.
    control: Mutex<()>,
}

impl DmaDevice {
    /// A device after reset, paused, and BAR 0's file.
    pub(super) fn new(lanes: Lanes, dma: Dma, irq: Irq) -> std::io::Result<(Self, OwnedFd)> {
        let (doorbells, bar0) = Doorbells::new()?;
        let engine = Arc::new(Engine {
            dma,
            events: Events::new(irq),
            doorbells,
            ring: Ring::default(),
            generator: Generator::new(lanes),
        });
        let workers = Workers::start("dma", engine.jobs(lanes))?;
        let device = Self {
            lanes,
            engine,
            workers,
            failed: AtomicBool::new(false),
            control: Mutex::new(()),
        };
        Ok((device, bar0))
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn control(&self) -> Control {
        let ring = self
            .engine
            .ring
            .with_state(|ring| ring.mode != RingMode::Disabled);
        let generator = self.engine.generator.state().mode != GeneratorMode::Disabled;
        let mut control = Control::empty();
        control.set(Control::RING_ENABLE, ring);
        control.set(Control::GEN_ENABLE, generator);
        control
    }

    fn status(&self) -> Status {
        let (in_flight, ring_mode) = self.engine.ring.with_state(|ring| (ring.in_flight(), ring.mode));
        let generator = &self.engine.generator;
        let mut status = Status::empty();
        status.set(Status::RING_BUSY, in_flight > 0);
        status.set(Status::RING_ERROR, ring_mode == RingMode::Failed);
        status.set(Status::GEN_RUNNING, generator.is_running());
        status.set(Status::GEN_ERROR, generator.state().mode == GeneratorMode::Failed);
        status.set(Status::FAILED, self.has_failed());
        status
    }

    fn read_register(&self, register: Register) -> u64 {
        let engine = &self.engine;
        let ring = |look: fn(&RingState) -> u64| engine.ring.with_state(|ring| look(ring));
        let events = || engine.events.state();
        let generator = || engine.generator.state().config;
        match register {
            Register::Id => spec::ID_VALUE.into(),
            Register::Version => spec::VERSION_VALUE.into(),
            Register::Lanes => self.lanes.get().into(),
            Register::MaxEntries => spec::MAX_ENTRIES.into(),
            Register::Control => self.control().bits().into(),
            Register::Status => self.status().bits().into(),
            Register::IntCause => events().causes.bits().into(),
            Register::IntEnable => events().enabled.bits().into(),
            Register::DescBase => ring(|ring| ring.config.desc_base),
            Register::CompBase => ring(|ring| ring.config.comp_base),
            Register::RingEntries => ring(|ring| ring.config.entries.into()),
            Register::RingHead => ring(|ring| ring.head.into()),
            Register::CompTail => ring(|ring| ring.comp_tail.into()),
            Register::Error => events().first_error.map_or(0, |error| error as u64),
            Register::GenBase => generator().base,
            Register::GenPages => generator().pages,
            Register::GenSeed => generator().seed,
            Register::GenRate => generator().rate,
            Register::GenLimit => generator().limit,
            Register::GenPosition(lane) => engine.generator.position(lane).unwrap_or(0),
            Register::RingTail => engine.doorbells.load(Doorbell::RingTail).into(),
            Register::CompHead => engine.doorbells.load(Doorbell::CompHead).into(),
        }
    }

    /// `value` is within the register's width.
    fn write_register(&self, register: Register, value: u64) {
        let engine = &self.engine;
        let low = value as u32;
        match register {
            Register::Control => self.write_control(Control::from_bits_truncate(low)),
            Register::IntCause => engine.events.acknowledge(Causes::from_bits_truncate(low)),
            Register::IntEnable => engine.events.enable(Causes::from_bits_truncate(low)),
            Register::DescBase => self.configure_ring(|ring| ring.desc_base = value),
            Register::CompBase => self.configure_ring(|ring| ring.comp_base = value),
            Register::RingEntries => self.configure_ring(|ring| ring.entries = low),
            Register::GenBase => self.configure_generator(|generator| generator.base = value),
            Register::GenPages => self.configure_generator(|generator| generator.pages = value),
            Register::GenSeed => self.configure_generator(|generator| generator.seed = value),
            Register::GenRate => self.configure_generator(|generator| generator.rate = value),
            Register::GenLimit => self.configure_generator(|generator| generator.limit = value),
            Register::RingTail => self.ring_doorbell(Doorbell::RingTail, low),
            Register::CompHead => self.ring_doorbell(Doorbell::CompHead, low),
            Register::Id
            | Register::Version
            | Register::Lanes
            | Register::MaxEntries
            | Register::Status
            | Register::RingHead
            | Register::CompTail
            | Register::Error
            | Register::GenPosition(_) => {}
        }
    }

    /// The configuration registers ignore writes while the ring is enabled.
    fn configure_ring(&self, change: impl FnOnce(&mut RingConfig)) {
        self.engine.ring.with_state(|ring| {
            if ring.mode == RingMode::Disabled {
                change(&mut ring.config);
            }
        });
    }

    fn configure_generator(&self, change: impl FnOnce(&mut GeneratorConfig)) {
        self.engine.generator.configure(change);
    }

    fn ring_doorbell(&self, doorbell: Doorbell, value: u32) {
        self.engine.doorbells.store(doorbell, value);
        self.workers.wakers().wake(self.poller());
    }

    /// The worker that watches the doorbells comes after the lanes.
    fn poller(&self) -> usize {
        self.lanes.get() as usize
    }

    fn write_control(&self, new: Control) {
        let old = self.control();
        if new == old {
            return;
        }
        self.while_paused(|| {
            for switched_off in (old - new).iter() {
                self.switch_off(switched_off);
            }
            for switched_on in (new - old).iter() {
                self.switch_on(switched_on);
            }
        });
    }

    fn switch_off(&self, part: Control) {
        if part == Control::RING_ENABLE {
            self.engine.ring.with_state(RingState::disable);
        } else {
            self.engine.generator.disable();
        }
    }

    fn switch_on(&self, part: Control) {
        let engine = &self.engine;
        let (switched, cause) = if part == Control::RING_ENABLE {
            engine.doorbells.reset();
            (engine.ring.with_state(RingState::enable), Causes::RING_ERROR)
        } else {
            (engine.generator.enable(), Causes::GEN_ERROR)
        };
        if let Err(error) = switched {
            engine.events.fail(cause, error);
        }
    }

    /// Makes a change while no worker is in a step. A device whose workers do not pause has failed.
    fn while_paused(&self, change: impl FnOnce()) {
        let was_running = self.workers.is_running();
        if let Err(error) = self.workers.pause(Instant::now() + STEP_TIMEOUT) {
            tracing::error!(%error, "dma: the device has failed and needs a reset");
            self.failed.store(true, Ordering::Release);
            return;
        }
        change();
        if was_running {
            self.workers.resume();
        }
    }

    /// The state of the paused device.
    fn snapshot(&self) -> Snapshot {
        let engine = &self.engine;
        Snapshot {
            events: engine.events.state(),
            ring_tail: engine.doorbells.load(Doorbell::RingTail),
            comp_head: engine.doorbells.load(Doorbell::CompHead),
            ring: engine.ring.with_state(|ring| ring.clone()),
            generator: engine.generator.state(),
            positions: engine.generator.positions(),
        }
    }

    /// Replaces the state of the paused device.
    fn replace(&self, new: Snapshot) {
        let engine = &self.engine;
        engine.doorbells.store(Doorbell::RingTail, new.ring_tail);
        engine.doorbells.store(Doorbell::CompHead, new.comp_head);
        engine.ring.with_state(|ring| *ring = new.ring);
        engine.generator.replace(new.generator, &new.positions);
        engine.events.replace(new.events);
    }
}

impl DeviceIo for DmaDevice {
    fn read(&self, bar: Bar, offset: u64, data: &mut [u8]) -> Result<(), IoError> {
        data.fill(0);
        match bar {
            Bar::Bar0 => {}
            Bar::Bar4 => return Ok(()),
            _ => return Err(IoError::NoSuchBar),
        }
        if let Target::Register(register, part) = Target::decode(offset, data.len(), self.lanes)? {
            part.read(self.read_register(register), data);
        }
        Ok(())
    }

    fn write(&self, bar: Bar, offset: u64, data: &[u8]) -> Result<(), IoError> {
        match bar {
            Bar::Bar0 => {}
            Bar::Bar4 => return Ok(()),
            _ => return Err(IoError::NoSuchBar),
        }
        let target = Target::decode(offset, data.len(), self.lanes)?;
        let _control = self.control.lock();
        if let Target::Register(register, part) = target
            && !self.has_failed()
        {
            self.write_register(register, part.write(self.read_register(register), data));
        }
        Ok(())
    }
}

impl RunState for DmaDevice {
    fn run(&self) {
        let _control = self.control.lock();
        if self.has_failed() {
            tracing::warn!("dma: a failed device does not run before a reset");
            return;
        }
        self.workers.resume();
    }

    fn quiesce(&self, deadline: Instant) -> Result<(), QuiesceError> {
        let _control = self.control.lock();
        self.workers
            .pause(deadline)
            .inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn reset(&self) {
        let _control = self.control.lock();
        if !self.workers.is_paused() {
            tracing::error!("dma: a device that is not quiescent cannot be reset");
            self.failed.store(true, Ordering::Release);
            return;
        }
        self.replace(Snapshot {
            events: EventState::RESET,
            ring_tail: 0,
            comp_head: 0,
            ring: RingState::default(),
            generator: GeneratorState::default(),
            positions: vec![0; self.lanes.get() as usize],
        });
        self.failed.store(false, Ordering::Release);
    }
}

impl SavedState for DmaDevice {
    fn identity(&self) -> Identity {
        Identity {
            kind: "dma".to_owned(),
            version: saved::VERSION,
            config: vec![("workers".to_owned(), self.lanes.get().into())],
        }
    }

    fn max_state_len(&self) -> usize {
        let in_flight = self.engine.ring.with_state(|ring| match ring.mode {
            RingMode::Running(_) => ring.config.entries as usize,
            RingMode::Disabled | RingMode::Failed => 0,
        });
        saved::max_len(in_flight, self.lanes)
    }

    fn save(&self) -> Result<Vec<u8>, SaveError> {
        let _control = self.control.lock();
        if self.has_failed() {
            return Err(SaveError("the device has failed".to_owned()));
        }
        if !self.workers.is_paused() {
            return Err(SaveError("the device is not quiescent".to_owned()));
        }
        saved::encode(&self.snapshot())
    }

    fn restore(&self, state: &[u8]) -> Result<(), RestoreError> {
        let _control = self.control.lock();
        if self.has_failed() || !self.workers.is_paused() {
            return Err(RestoreError("the device is not quiescent".to_owned()));
        }
        self.replace(saved::decode(state, self.lanes)?);
        Ok(())
    }
}
