//! One `dma` device: everything a driver keeps of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::interrupts::Interrupts;
use super::mapped::Mapped;
use super::pci::Function;
use super::registers::Registers;
use crate::arena::{Arena, Batch};
use crate::protocol::{DeviceReport, GeneratorReport, VECTORS};
use crate::random::Random;
use crate::replay::check_window;
use crate::ring::{Descriptor, Operation, Ring};

/// Entries of the rings: so few that work wraps around all the time.
const ENTRIES: u32 = 16;

/// The vector of completions.
const COMPLETION: usize = 0;

/// How long the device may take for a piece of work; an emulated processor on a busy host is slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Bytes of BAR 0.
const BAR_SIZE: usize = 8192;

/// How a driver learns that work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    Interrupts,
    Polling,
}

/// Where things lie in a device's memory: rings, arena, and the generator's window up to the end.
struct Layout {
    region: Range<u64>,
}

impl Layout {
    fn rings(&self) -> u64 {
        self.region.start
    }

    fn arena(&self) -> u64 {
        self.region.start + (1 << 20)
    }

    fn window(&self) -> Range<u64> {
        self.arena() + Arena::SIZE..self.region.end
    }
}

/// A device and its driver.
pub(super) struct Device {
    function: Function,
    registers: Registers,
    interrupts: Interrupts,
    memory: Mapped,
    layout: Layout,
    ring: Ring<Mapped>,
    arena: Arena,
    random: Random,
    acknowledged: [u64; VECTORS],
    batches: Arc<AtomicU64>,
    /// A descriptor that `hold` left without its completion taken.
    held: Option<u64>,
}

impl Device {
    /// Takes a device over, whatever state it is in. `memory` is the window of all devices, `region` this device's part.
    pub(super) fn open(function: Function, memory: &Mapped, region: Range<u64>, seed: u64) -> Result<Self> {
        let interrupts = Interrupts::open(&function.vectors()?)?;
        let bar = Mapped::new(interrupts.file(), 0, BAR_SIZE, 0)?;
        let registers = Registers::new(bar)?;
        let layout = Layout { region };
        registers.quiesce()?;
        let ring = Ring::new(memory, layout.rings(), ENTRIES)?;
        let arena = Arena::new(memory, layout.arena(), seed)?;
        registers.enable_ring(&ring)?;
        Ok(Self {
            function,
            registers,
            interrupts,
            memory: memory.clone(),
            layout,
            ring,
            arena,
            random: Random::new(!seed),
            acknowledged: [0; VECTORS],
            batches: Arc::default(),
            held: None,
        })
    }

    /// Batches done, also readable while another thread works with the device.
    pub(super) fn batches(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.batches)
    }

    /// The registers, for use while another thread works with the rings.
    pub(super) fn registers(&self) -> Registers {
        self.registers.clone()
    }

    /// The memory that the generator may write.
    pub(super) fn window(&self) -> Range<u64> {
        self.layout.window()
    }

    /// Does a batch of descriptors and checks what came of it.
    pub(super) fn work(&mut self) -> Result<()> {
        let mut batch = self.arena.plan();
        let notice = match self.random.below(4) {
            0 => Notice::Polling,
            _ => Notice::Interrupts,
        };
        for descriptor in batch.descriptors() {
            let flags = match notice {
                Notice::Interrupts => descriptor.flags,
                Notice::Polling => 0,
            };
            let pushed = self.ring.push(&Descriptor { flags, ..*descriptor })?;
            pushed.context("the ring is full before all of a batch is in it")?;
        }
        self.registers.ring_doorbell(&self.ring)?;
        match notice {
            Notice::Interrupts => self.complete_with_interrupts(&mut batch)?,
            Notice::Polling => self.complete_by_polling(&mut batch)?,
        }
        if let Some(damage) = self.arena.damage(&self.memory)? {
            bail!("after a batch: {damage}");
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn take_completions(&mut self, batch: &mut Batch) -> Result<()> {
        while let Some(completion) = self.ring.poll()? {
            batch.complete(&completion).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// Acknowledges before it looks, so that a completion that comes meanwhile has an interrupt of its own.
    fn complete_with_interrupts(&mut self, batch: &mut Batch) -> Result<()> {
        while batch.outstanding() > 0 {
            self.await_interrupt(COMPLETION)?;
            self.acknowledge(COMPLETION)?;
            self.take_completions(batch)?;
        }
        // The last completion may have come with an interrupt that is still on its way.
        if self.registers.has_cause(COMPLETION)? {
            self.await_interrupt(COMPLETION)?;
            self.acknowledge(COMPLETION)?;
        }
        Ok(())
    }

    fn complete_by_polling(&mut self, batch: &mut Batch) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while batch.outstanding() > 0 {
            self.take_completions(batch)?;
            self.registers.healthy()?;
            if Instant::now() > deadline {
                bail!("{} completions have not come", batch.outstanding());
            }
        }
        Ok(())
    }

    /// Waits for an interrupt with its cause set. One that comes again for a cause that is gone is allowed: at the end of a
    /// migration the device cannot know which have arrived.
    fn await_interrupt(&mut self, vector: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.interrupts.wait(vector, left)? {
                let cause = self.registers.has_cause(vector)?;
                bail!("an interrupt of vector {vector} has not come (its cause is set: {cause})");
            }
            if self.registers.has_cause(vector)? {
                return Ok(());
            }
        }
    }

    fn acknowledge(&mut self, vector: usize) -> Result<()> {
        self.registers.acknowledge(vector)?;
        self.acknowledged[vector] += 1;
        Ok(())
    }

    /// Has one piece of work done and takes its interrupt, but neither its cause nor its completion.
    pub(super) fn hold(&mut self) -> Result<()> {
        if self.held.is_some() {
            return Ok(());
        }
        let cookie = self.random.number();
        let pushed = self.ring.push(&Descriptor::new(Operation::Nop, cookie))?;
        pushed.context("the ring is full")?;
        self.held = Some(cookie);
        self.registers.ring_doorbell(&self.ring)?;
        self.await_interrupt(COMPLETION)
    }

    /// Takes what [`hold`](Self::hold) left.
    pub(super) fn release(&mut self) -> Result<()> {
        let Some(cookie) = self.held.take() else {
            return Ok(());
        };
        if !self.registers.has_cause(COMPLETION)? {
            bail!("the cause that was left pending is gone");
        }
        self.acknowledge(COMPLETION)?;
        match self.ring.poll()? {
            Some(completion) if completion.cookie == cookie => Ok(()),
            other => bail!("the completion that was left is {other:?}"),
        }
    }

    /// Resets the device through the kernel and sets it up again. What memory must hold stays the same.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.held = None;
        self.function.reset()?;
        self.registers.check_reset()?;
        self.registers.quiesce()?;
        self.start_ring()
    }

    /// Looks at every byte that the device's work has reached; nothing may be at work.
    pub(super) fn check(&mut self, generator: Option<&GeneratorReport>) -> Result<()> {
        self.release()?;
        self.come_to_rest()?;
        if let Some(damage) = self.arena.damage(&self.memory)? {
            bail!("arena: {damage}");
        }
        if let Some(GeneratorReport {
            generator, positions, ..
        }) = generator
        {
            let wrong = check_window(&self.memory, generator, positions)?;
            if let Some(first) = wrong.first() {
                bail!("generator: {} pages are wrong, first: {first}", wrong.len());
            }
        }
        let interrupts = self.interrupts.counts()?;
        if interrupts[COMPLETION] < self.acknowledged[COMPLETION] {
            bail!(
                "{} completion causes were acknowledged, but {} interrupts taken",
                self.acknowledged[COMPLETION],
                interrupts[COMPLETION]
            );
        }
        self.start_ring()
    }

    /// Stops the ring, and takes the interrupts of everything that had not been taken yet.
    fn come_to_rest(&mut self) -> Result<()> {
        self.registers.disable_ring()?;
        for vector in 0..VECTORS {
            if self.registers.has_cause(vector)? {
                self.await_interrupt(vector)?;
                self.acknowledge(vector)?;
            }
        }
        Ok(())
    }

    fn start_ring(&mut self) -> Result<()> {
        self.ring = Ring::new(&self.memory, self.layout.rings(), ENTRIES)?;
        self.registers.enable_ring(&self.ring)
    }

    /// How the device is; the caller adds what it knows.
    pub(super) fn report(&mut self) -> Result<DeviceReport> {
        let region = &self.layout.region;
        Ok(DeviceReport {
            address: self.function.address().to_owned(),
            region: (region.start, region.end - region.start),
            arena: (self.arena.base(), Arena::SIZE, self.arena.crc()),
            generator: None,
            batches: self.batches.load(Ordering::Relaxed),
            history: self.arena.history(),
            interrupts: self.interrupts.counts()?,
            acknowledged: self.acknowledged,
            errors: Vec::new(),
        })
    }
}
