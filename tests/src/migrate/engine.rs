//! The steps of a migration.
#![allow(clippy::cast_precision_loss)] // Rates for people: a page more or less in 2^52 does not show.

use std::time::{Duration, Instant};

use super::MigrateError;
use super::dirty::LoggingPlan;
use super::saved_state::{Support, cancel_saving, read_available, read_stream, resume, write_stream};
use super::stats::{Outcome, PassKind, PassStats};
use super::transfer::Transfer;
use crate::oracle::{Depth, Oracle, Verdict};
use crate::vmm::{Device, IrqKind, PAGE_SIZE, PageSet, Vm};

/// Whether device state is read while the devices run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PreCopy {
    /// Where the devices offer it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How to migrate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a page of the reports.
    pub page_size: u64,
    /// Live passes after which the source is stopped whatever is dirty.
    pub max_passes: u32,
    /// Stop the source when a pass had at most this many pages.
    pub threshold: u64,
    /// Bytes of device state per message.
    pub chunk: u32,
    /// Whether device state is read while the devices run.
    pub pre_copy: PreCopy,
    /// How much the oracle looks at.
    pub depth: Depth,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            page_size: PAGE_SIZE,
            max_passes: 8,
            threshold: 256,
            chunk: 1 << 20,
            pre_copy: PreCopy::Auto,
            depth: Depth::Full,
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A stage begins.
    Stage(&'static str),
    /// A pass of this many pages begins.
    PassBegins {
        /// Its number.
        number: u32,
        /// Pages to copy.
        pages: u64,
    },
    /// A pass is done.
    PassDone(&'a PassStats),
}

/// Is told what happens.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);
}

/// An observer that looks away.
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event<'_>) {}
}

/// What a destination's device needs of its source beside the stream: the VMM's own state.
struct VmmState {
    config: [u8; 256],
    interrupts: Option<IrqKind>,
}

/// A migration under way.
pub struct Migration<'a> {
    pub(super) source: &'a mut Vm,
    pub(super) dest: &'a mut Vm,
    pub(super) options: Options,
    pub(super) support: Support,
    pub(super) plan: LoggingPlan,
    pub(super) oracle: Oracle,
    /// The next pass sends all memory: nothing is known of what was written.
    pub(super) resend: bool,
    observer: &'a mut dyn Observer,
    passes: Vec<PassStats>,
    began: Instant,
    last_report: Instant,
    /// Time that only the oracle took.
    oracle_time: Duration,
}

impl<'a> Migration<'a> {
    /// Starts logging, saving and resuming.
    ///
    /// # Errors
    ///
    /// Devices that do not match or do not migrate, or one that refuses.
    pub fn start(
        source: &'a mut Vm,
        dest: &'a mut Vm,
        options: Options,
        observer: &'a mut dyn Observer,
    ) -> Result<Self, MigrateError> {
        if source.device_count() != dest.device_count() {
            return Err(MigrateError::Unpaired {
                sources: source.device_count(),
                dests: dest.device_count(),
            });
        }
        observer.event(Event::Stage("starting DMA logging"));
        let offered = Support::of(source)?;
        Support::of(dest)?;
        let support = match options.pre_copy {
            PreCopy::Auto => offered,
            PreCopy::Off => offered.without_pre_copy(),
        };
        let plan = LoggingPlan::new(source, options.page_size)?;
        let oracle = Oracle::new(source.memory(), options.depth);
        let now = Instant::now();
        plan.start(source)?;
        support.begin_saving(source)?;
        resume(dest)?;
        Ok(Self {
            source,
            dest,
            options,
            support,
            plan,
            oracle,
            resend: true,
            observer,
            passes: Vec::new(),
            began: now,
            last_report: now,
            oracle_time: Duration::ZERO,
        })
    }

    /// The VM that is migrated.
    pub fn source(&mut self) -> &mut Vm {
        self.source
    }

    /// The VM that it is migrated to.
    pub fn dest(&mut self) -> &mut Vm {
        self.dest
    }

    /// The passes so far.
    pub fn passes(&self) -> &[PassStats] {
        &self.passes
    }

    /// Whether the source should be stopped now.
    pub fn converged(&self) -> bool {
        match self.passes.last() {
            None => false,
            Some(pass) => {
                pass.number >= self.options.max_passes
                    || (pass.number > 0 && pass.pages <= self.options.threshold)
            }
        }
    }

    /// One pass while the devices run.
    ///
    /// # Errors
    ///
    /// A device that refuses: its log or its state is lost, and the migration with it.
    pub fn pass(&mut self) -> Result<(), MigrateError> {
        let kind = if self.resend {
            PassKind::Bulk
        } else {
            PassKind::Live
        };
        let (pages, mut stats) = self.send_pages(kind)?;
        let clock = Instant::now();
        if self.support.pre_copy() {
            stats.device_bytes = self.send_state(read_available)?;
        }
        stats.seconds += clock.elapsed().as_secs_f64();
        self.inspect(stats.number, &pages)?;
        self.pass_done(stats);
        Ok(())
    }

    /// Stops the source, sends what is left, and starts the destination.
    ///
    /// # Errors
    ///
    /// A device that refuses. The source's devices may then be stopped: [`Self::cancel`] starts them again.
    pub fn switch_over(&mut self) -> Result<Outcome, MigrateError> {
        let vmm_states = self.source.each("reading what the VMM carries over", vmm_state)?;
        self.observer.event(Event::Stage("stopping the source"));
        let stopped = Instant::now();
        self.support.stop(self.source)?;
        let (pages, mut stats) = self.send_pages(PassKind::Final)?;
        let clock = Instant::now();
        stats.device_bytes = self.send_state(read_stream)?;
        for (index, state) in vmm_states.iter().enumerate() {
            self.dest
                .with(index, "restoring what the VMM carries over", |device| {
                    restore(device, state)
                })?;
        }
        stats.seconds += clock.elapsed().as_secs_f64();
        let oracle_before = self.oracle_time;
        let verdict = self.judge(stats.number, &pages)?;
        self.observer.event(Event::Stage("starting the destination"));
        self.support.start(self.dest)?;
        let judging = self.oracle_time.saturating_sub(oracle_before);
        let downtime = stopped.elapsed().saturating_sub(judging);
        let total = self.began.elapsed().saturating_sub(self.oracle_time);
        self.pass_done(stats);
        self.plan.stop(self.source)?;
        Ok(Outcome {
            memory_size: self.source.memory().size(),
            page_size: self.options.page_size,
            devices: self
                .source
                .devices()
                .iter()
                .map(|device| device.name().to_owned())
                .collect(),
            pre_copy: self.support.pre_copy(),
            p2p: self.support.p2p(),
            dma_logging: self.plan.logs(),
            passes: std::mem::take(&mut self.passes),
            downtime: downtime.as_secs_f64(),
            seconds: total.as_secs_f64(),
            verdict,
            replays: Vec::new(),
        })
    }

    /// Gives up: the source runs on, the destination is reset.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn cancel(self) -> Result<(), MigrateError> {
        cancel_saving(self.source)?;
        self.plan.stop(self.source)?;
        self.dest.each("resetting the destination", |device| {
            device.client().device_reset()
        })?;
        Ok(())
    }

    fn send_pages(&mut self, kind: PassKind) -> Result<(PageSet, PassStats), MigrateError> {
        let number = self.passes.len() as u32;
        let clock = Instant::now();
        let mut pages = self.plan.collect(self.source)?;
        let since_report = self.last_report.elapsed();
        self.last_report = Instant::now();
        let dirty_rate = if number == 0 {
            0.0
        } else {
            pages.count() as f64 / since_report.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        if std::mem::take(&mut self.resend) {
            pages = PageSet::all(self.source.memory());
        }
        self.oracle.reported(&pages);
        let count = pages.count();
        self.observer.event(Event::PassBegins { number, pages: count });
        let transfer = Transfer::copy(self.source.memory(), self.dest.memory(), &pages, &mut self.oracle)?;
        let stats = PassStats {
            number,
            kind,
            pages: count,
            zero_pages: transfer.zero_pages,
            redundant_pages: transfer.redundant_pages,
            memory_bytes: transfer.bytes,
            device_bytes: 0,
            seconds: clock.elapsed().as_secs_f64(),
            dirty_rate,
        };
        Ok((pages, stats))
    }

    /// Moves what `read` gives of each device's state to its destination, and counts it.
    fn send_state(
        &mut self,
        mut read: impl FnMut(&mut Device, u32) -> crate::client::Result<Vec<u8>>,
    ) -> Result<u64, MigrateError> {
        let chunk = self.options.chunk;
        let mut bytes = 0;
        for index in 0..self.source.device_count() {
            let stream = self
                .source
                .with(index, "reading the device's state", |device| read(device, chunk))?;
            self.dest.with(index, "loading the device's state", |device| {
                write_stream(device, &stream, chunk)
            })?;
            bytes += stream.len() as u64;
        }
        Ok(bytes)
    }

    fn inspect(&mut self, pass: u32, reported: &PageSet) -> Result<(), MigrateError> {
        let clock = Instant::now();
        self.oracle.inspect(self.source.memory(), pass, reported)?;
        self.oracle_time += clock.elapsed();
        Ok(())
    }

    fn judge(&mut self, pass: u32, reported: &PageSet) -> Result<Verdict, MigrateError> {
        self.observer
            .event(Event::Stage("comparing source and destination"));
        let clock = Instant::now();
        self.oracle.inspect(self.source.memory(), pass, reported)?;
        let next = Oracle::new(self.source.memory(), self.options.depth);
        let oracle = std::mem::replace(&mut self.oracle, next);
        let verdict = oracle.verdict(self.source.memory(), self.dest.memory(), pass)?;
        self.oracle_time += clock.elapsed();
        Ok(verdict)
    }

    fn pass_done(&mut self, stats: PassStats) {
        self.observer.event(Event::PassDone(&stats));
        self.passes.push(stats);
    }
}

fn vmm_state(device: &mut Device) -> crate::client::Result<VmmState> {
    Ok(VmmState {
        config: device.config().snapshot()?,
        interrupts: device.interrupts().map(crate::vmm::Interrupts::kind),
    })
}

fn restore(device: &mut Device, state: &VmmState) -> crate::client::Result<()> {
    device.config().restore(&state.config)?;
    match state.interrupts {
        Some(kind) => device.connect_interrupts(kind),
        None => Ok(()),
    }
}
