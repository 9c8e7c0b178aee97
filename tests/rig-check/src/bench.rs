//! How long it takes to read and clear dirty pages, against a program that does it by system calls alone: those of an IOMMU
//! (`tests/rig/bare-loop.c`) and those that a device logs (`tests/rig/bare-log.c`).
//!
//! Both sides have a device, an address space and a page table of their own, alike and in the same VM, and are measured in turns. More address space
//! than there is memory is had by mapping the memory several times.

mod iommu;
mod log;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{MIB, PAGE};
use pagetrail_tracker::{DirtyTracker, IovaRange, PageSize, ReportBitmap};

use crate::device::Device;
use crate::mlx5::Vf;
use crate::space::range;

/// Bytes of memory that each side has.
const MEMORY: u64 = 512 * MIB;
const GIB: u64 = 1024 * MIB;
/// Where the memory is, for devices: above all that the machine keeps for interrupts.
const START: u64 = 4 * GIB;

/// What is measured, and how often.
struct Case {
    dirty: Dirty,
    pairs: usize,
}

/// How many pages are written before each read.
#[derive(Clone, Copy)]
enum Dirty {
    Some(u64),
    All,
}

const HEADER: &str =
    "| address space | dirty pages | tracker, ms | bare loop, ms | ratio |\n|---|---|---|---|---|";

/// A side that is measured. The other one is [`Bare`].
trait Side: Send {
    /// The device writes so many pages, as far from each other as they can be.
    fn write(&mut self, pages: u64) -> Result<()>;

    /// Milliseconds of a read, which must find `pages` pages.
    fn read(&mut self, pages: u64) -> Result<f64>;
}

/// Prints a table of the IOMMU tracker. `bare` is a command line, without the memory and how often it is mapped.
pub(crate) fn of_iommu(device: &Arc<Device>, bare: &str) -> Result<()> {
    println!("{HEADER}");
    // Writing every page of 16 GiB takes an emulated device half a minute.
    for (len, pairs_of_some, pairs_of_all) in [(GIB, 41, 21), (16 * GIB, 21, 5)] {
        let cases = [
            Case {
                dirty: Dirty::Some(1000),
                pairs: pairs_of_some,
            },
            Case {
                dirty: Dirty::All,
                pairs: pairs_of_all,
            },
        ];
        let mut ours = iommu::Tracked::new(device, len)?;
        let mut bare = Bare::new(bare, len)?;
        for case in cases {
            println!("{}", measure(&mut ours, &mut bare, len, &case)?);
        }
    }
    Ok(())
}

/// Prints a table of a device's own log; `bare` as for [`of_iommu`].
///
/// The rigs' adapter logs a few thousand pages, which is why there are never more.
pub(crate) fn of_log(vf: &Arc<Vf>, bare: &str) -> Result<()> {
    println!("{HEADER}");
    for len in [GIB, 16 * GIB] {
        let mut ours = log::Logged::new(vf, len)?;
        let mut bare = Bare::new(bare, len)?;
        for (pages, pairs) in [(1000, 41), (16_000, 21)] {
            let dirty = Dirty::Some(pages);
            println!("{}", measure(&mut ours, &mut bare, len, &Case { dirty, pairs })?);
        }
    }
    Ok(())
}

/// A row of the table.
fn measure(ours: &mut dyn Side, bare: &mut Bare, len: u64, case: &Case) -> Result<String> {
    let pages = match case.dirty {
        Dirty::Some(pages) => pages,
        Dirty::All => len / PAGE,
    };
    let (mut times, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for pair in 0..=case.pairs {
        ours.write(pages)?;
        bare.write(pages)?;
        let (a, b) = if pair % 2 == 0 {
            let a = rested(|| ours.read(pages))?;
            (a, bare.read(pages)?)
        } else {
            let b = bare.read(pages)?;
            (rested(|| ours.read(pages))?, b)
        };
        // The first read of each finds its bitmap and the page table for the first time.
        if pair > 0 {
            times[0].push(a);
            times[1].push(b);
            ratios.push(a / b);
        }
    }
    let [_, our_time, _] = interval(&mut times[0]);
    let [_, bare_time, _] = interval(&mut times[1]);
    let [low, ratio, high] = interval(&mut ratios);
    Ok(format!(
        "| {} GiB | {} | {our_time:.2} | {bare_time:.2} | {ratio:.3} [{low:.3}, {high:.3}] |",
        len / GIB,
        match case.dirty {
            Dirty::Some(pages) => pages.to_string(),
            Dirty::All => "all".to_owned(),
        },
    ))
}

/// Runs `read` in a thread that has not used up its time, as the other side's has not: it has slept until it was asked.
fn rested<T: Send>(read: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(read).join()).expect("a read does not panic")
}

/// The median with its 95 % confidence interval around it, that of the order statistics. There is a sample at least.
fn interval(samples: &mut [f64]) -> [f64; 3] {
    samples.sort_by(f64::total_cmp);
    let (middle, last) = (samples.len() / 2, samples.len() - 1);
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a square root of a small number"
    )]
    let half = (0.98 * (samples.len() as f64).sqrt()).ceil() as usize;
    [middle.saturating_sub(half), middle, (middle + half).min(last)].map(|rank| samples[rank])
}

/// What both trackers are read by, and into.
struct Reading {
    all: IovaRange,
    bitmap: Vec<u8>,
}

impl Reading {
    /// Of `len` bytes of address space.
    fn of(len: u64) -> Result<Self> {
        let all = range(START, len);
        let bitmap = vec![0; ReportBitmap::required_len(all, PageSize::SIZE_4K)?];
        Ok(Self { all, bitmap })
    }

    /// As [`Side::read`].
    fn time(&mut self, tracker: &dyn DirtyTracker, pages: u64) -> Result<f64> {
        let started = Instant::now();
        self.bitmap.fill(0);
        let mut report = ReportBitmap::new(self.all, PageSize::SIZE_4K, &mut self.bitmap)?;
        tracker.read_and_clear(&mut report)?;
        let elapsed = started.elapsed();
        let found: u64 = self.bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        ensure!(pages == found, "the tracker has found {found} pages of {pages}");
        Ok(elapsed.as_secs_f64() * 1e3)
    }
}

/// The starts of the parts of `range` that are `len` long.
fn starts(range: IovaRange, len: u64) -> impl Iterator<Item = u64> {
    (range.start().get()..=range.last().get()).step_by(len as usize)
}

/// The other side. It ends when it has no more commands.
struct Bare {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Bare {
    fn new(command: &str, len: u64) -> Result<Self> {
        let mut words = command.split_whitespace();
        let program = words.next().context("no program to compare with")?;
        let mut child = Command::new(program)
            .args(words)
            .args([MEMORY.to_string(), (len / MEMORY).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let answers = BufReader::new(child.stdout.take().context("it has no output")?);
        Ok(Self {
            commands: child.stdin.take(),
            child,
            answers,
        })
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        let commands = self.commands.as_mut().context("it has no input")?;
        writeln!(commands, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "the bare loop has ended");
        Ok(answer)
    }

    fn write(&mut self, pages: u64) -> Result<()> {
        self.ask(&format!("write {pages}"))?;
        Ok(())
    }

    /// As [`Side::read`].
    fn read(&mut self, pages: u64) -> Result<f64> {
        let answer = self.ask("read")?;
        let (nanoseconds, found) = answer.trim().split_once(' ').context("no answer")?;
        ensure!(
            found.parse() == Ok(pages),
            "the bare loop has found {found} pages of {pages}"
        );
        Ok(nanoseconds.parse::<f64>()? / 1e6)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It has let go of its device, for the next one, when it is gone.
        let _ = self.child.wait();
    }
}
