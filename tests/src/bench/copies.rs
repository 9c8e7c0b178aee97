//! Throughput of copies by a `dma` device.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::{Interval, Output, paired};
use crate::client::LoggingRange;
use crate::driver::{Descriptor, Dma, Operation, Ring, regs};
use crate::vmm::{Backing, GuestMemory, MappedArea, PAGE_SIZE, Vm};

/// Guest memory: the buffers, and room for the ring.
const MEMORY: u64 = 256 << 20;
const RING: u64 = 2 << 20;
const ENTRIES: u32 = 1024;
const SOURCE: u64 = 16 << 20;
const DEST: u64 = 144 << 20;
/// Bytes of each buffer: copies walk through it.
const BUFFER: u64 = 64 << 20;
/// How often the reader reads, as a migration's passes would at their fastest.
const READER_PERIOD: Duration = Duration::from_millis(10);

/// Options of `bench copies`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Socket of a `dma` device.
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// Interleaved pairs for each size.
    #[arg(long, default_value_t = 41, value_name = "N")]
    pairs: usize,
    /// Bytes copied in each half of a pair.
    #[arg(long, default_value = "256M", value_parser = crate::cli::parse_size, value_name = "SIZE")]
    bytes: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Row {
    copy_size: u64,
    /// Bytes per second.
    logging_off: Interval,
    logging_on: Interval,
    memcpy: Interval,
    /// Throughput with logging on and read, against off.
    on_to_off: Interval,
    /// Throughput of the device with logging off against memcpy.
    off_to_memcpy: Interval,
}

struct Rig {
    vm: Vm,
    memory: Arc<GuestMemory>,
    ring: Ring,
    doorbells: MappedArea,
    bytes: u64,
}

/// Whether the device logs, and somebody reads the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    None,
    Running,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut rig = Rig::new(args)?;
    let mut rows = Vec::new();
    for copy_size in [64 << 10, 4 << 10] {
        rig.copies(copy_size, Reader::None)?;
        rows.push(rig.measure(copy_size, args.pairs)?);
    }
    let mut table =
        String::from("copies by the device, GB/s; ratios are medians of interleaved pairs [95 % interval]\n");
    table.push_str("  size     off     on   memcpy   on/off                  off/memcpy\n");
    for row in &rows {
        let (on, memcpy) = (row.on_to_off, row.off_to_memcpy);
        writeln!(
            table,
            "  {:>3}K {:>7.2} {:>6.2} {:>8.2}   {:.4} [{:.4}, {:.4}]  {:.3} [{:.3}, {:.3}]",
            row.copy_size >> 10,
            row.logging_off.median / 1e9,
            row.logging_on.median / 1e9,
            row.memcpy.median / 1e9,
            on.median,
            on.low,
            on.high,
            memcpy.median,
            memcpy.low,
            memcpy.high
        )?;
    }
    args.output.write(&table, &rows)
}

impl Rig {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let memory = GuestMemory::pc(MEMORY, Backing::Sealed)?;
        memory.fill(1);
        let mut vm = Vm::connect(std::slice::from_ref(&args.server), Arc::clone(&memory))?;
        vm.enable_devices()?;
        let ring = Ring::new(&memory, RING, ENTRIES)?;
        let mut dma = Dma::attach(&mut vm.devices()[0])?;
        dma.enable_ring(&ring)?;
        let doorbells = dma.map_doorbells()?;
        Ok(Self {
            vm,
            memory,
            ring,
            doorbells,
            bytes: args.bytes,
        })
    }

    fn measure(&mut self, copy_size: u64, pairs: usize) -> anyhow::Result<Row> {
        let on_off = paired(
            self,
            pairs,
            |rig| rig.copies(copy_size, Reader::Running),
            |rig| rig.copies(copy_size, Reader::None),
        )?;
        let off_memcpy = paired(
            self,
            pairs,
            |rig| rig.copies(copy_size, Reader::None),
            |rig| rig.memcpy(copy_size),
        )?;
        let interval = |samples: Vec<f64>| Interval::of(&samples).context("--pairs must be at least 1");
        Ok(Row {
            copy_size,
            logging_on: interval(on_off.iter().map(|pair| pair.0).collect())?,
            logging_off: interval(on_off.iter().map(|pair| pair.1).collect())?,
            memcpy: interval(off_memcpy.iter().map(|pair| pair.1).collect())?,
            on_to_off: interval(on_off.iter().map(|pair| pair.0 / pair.1).collect())?,
            off_to_memcpy: interval(off_memcpy.iter().map(|pair| pair.0 / pair.1).collect())?,
        })
    }

    /// Bytes per second of the device.
    fn copies(&mut self, copy_size: u64, reader: Reader) -> anyhow::Result<f64> {
        let range = LoggingRange {
            iova: 0,
            length: MEMORY,
        };
        if reader == Reader::Running {
            self.vm.with(0, "starting DMA logging", |device| {
                device.client().logging_start(PAGE_SIZE, &[range])
            })?;
        }
        let rate = self.run_copies(copy_size, reader)?;
        if reader == Reader::Running {
            self.vm
                .with(0, "stopping DMA logging", |device| device.client().logging_stop())?;
        }
        Ok(rate)
    }

    fn run_copies(&mut self, copy_size: u64, reader: Reader) -> anyhow::Result<f64> {
        let total = self.bytes / copy_size;
        let (mut pushed, mut done) = (0, 0);
        let clock = Instant::now();
        let mut last_read = clock;
        while done < total {
            pushed += self.push(copy_size, pushed, total)?;
            while let Some(completion) = self.ring.poll()? {
                ensure!(
                    completion.status == regs::ERROR_NONE,
                    "a copy failed with error {}",
                    completion.status
                );
                done += 1;
            }
            if reader == Reader::Running && last_read.elapsed() >= READER_PERIOD {
                last_read = Instant::now();
                self.vm.with(0, "reading the dirty log", |device| {
                    device.client().logging_report(0, MEMORY, PAGE_SIZE)
                })?;
            }
            ensure!(
                clock.elapsed() < Duration::from_mins(1),
                "the device has done {done} of {total} copies in a minute"
            );
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(self.bytes as f64 / clock.elapsed().as_secs_f64())
    }

    /// Fills the ring up and rings the doorbell.
    fn push(&mut self, copy_size: u64, pushed: u64, total: u64) -> anyhow::Result<u64> {
        let mut count = 0;
        while pushed + count < total {
            let offset = (pushed + count) * copy_size % BUFFER;
            let operation = Operation::Copy {
                source: SOURCE + offset,
                dest: DEST + offset,
                length: copy_size,
            };
            let descriptor = Descriptor {
                flags: 0,
                ..Descriptor::new(operation, pushed + count)
            };
            if self.ring.push(&descriptor)?.is_none() {
                break;
            }
            count += 1;
        }
        self.doorbells
            .store(regs::COMP_HEAD, self.ring.consumed())
            .context("no doorbell is mapped")?;
        self.doorbells
            .store(regs::RING_TAIL, self.ring.published())
            .context("no doorbell is mapped")?;
        Ok(count)
    }

    /// Bytes per second of memcpy in this process.
    fn memcpy(&mut self, copy_size: u64) -> anyhow::Result<f64> {
        let clock = Instant::now();
        for number in 0..self.bytes / copy_size {
            let offset = number * copy_size % BUFFER;
            self.memory
                .copy_within(SOURCE + offset, DEST + offset, copy_size)?;
        }
        Ok(self.bytes as f64 / clock.elapsed().as_secs_f64())
    }
}
