//! A table of migrations.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::Output;
use crate::migrate::{Load, Options, Silent, Workload, run as migrate};
use crate::oracle::Depth;
use crate::report::{bytes, count, seconds};
use crate::vmm::{Backing, GuestMemory, Vm};

/// How long the generators may take to write as many pages as their windows have.
const WARM_UP: Duration = Duration::from_mins(2);

/// Part of the memory that is at hand which a migration may take.
const USABLE_PERCENT: u64 = 85;

/// Options of `bench migrations`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Socket of a source device; give it once for each device that shares the address space.
    #[arg(long, required = true, value_name = "PATH")]
    source: Vec<PathBuf>,
    /// Socket of a destination device, in the order of --source.
    #[arg(long, required = true, value_name = "PATH")]
    dest: Vec<PathBuf>,
    /// Sizes of the guest.
    #[arg(long, default_value = "1G,4G,16G", value_delimiter = ',', value_parser = crate::cli::parse_size, value_name = "SIZES")]
    memory: Vec<u64>,
    /// Per cent of the guest that is rewritten.
    #[arg(long, default_value = "1,50", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=90), value_name = "PERCENTS")]
    rewritten: Vec<u64>,
    /// Page writes per second of all devices together; 0 is flat out. With more devices than processors a rate is the fair
    /// comparison: flat out, the client would mostly wait for its turn to run.
    #[arg(long, default_value_t = 0, value_name = "N")]
    rate: u64,
    /// Live passes before the stop.
    #[arg(long, default_value_t = 4, value_name = "N")]
    passes: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Row {
    memory: u64,
    rewritten_percent: u64,
    devices: usize,
    result: RowResult,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum RowResult {
    Migrated(Figures),
    /// It was not made, and why.
    Skipped(String),
}

#[derive(Serialize)]
struct Figures {
    seconds: f64,
    downtime: f64,
    pages: u64,
    redundant_pages: u64,
    wire_bytes: u64,
    device_bytes: u64,
    passed: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.source.len() == args.dest.len(),
        "give as many --dest as --source"
    );
    let mut rows = Vec::new();
    for memory in &args.memory {
        for percent in &args.rewritten {
            rows.push(Row {
                memory: *memory,
                rewritten_percent: *percent,
                devices: args.source.len(),
                result: row(args, *memory, *percent)?,
            });
        }
    }
    args.output.write(&table(&rows)?, &rows)
}

fn table(rows: &[Row]) -> anyhow::Result<String> {
    let mut out = String::from(
        "migrations; memory that no device writes is left empty: it is sent as zero pages and touched on neither side\n",
    );
    out.push_str("  guest      rewritten  devices       time   downtime      pages  redundant  wire bytes\n");
    for row in rows {
        write!(
            out,
            "  {:<10} {:>7} % {:>8}",
            bytes(row.memory),
            row.rewritten_percent,
            row.devices
        )?;
        match &row.result {
            RowResult::Migrated(figures) => writeln!(
                out,
                " {:>10} {:>10} {:>10} {:>10} {:>11}{}",
                seconds(figures.seconds),
                seconds(figures.downtime),
                count(figures.pages),
                count(figures.redundant_pages),
                bytes(figures.wire_bytes),
                if figures.passed { "" } else { "  PAGES WERE LOST" }
            )?,
            RowResult::Skipped(why) => writeln!(out, "  skipped: {why}")?,
        }
    }
    Ok(out)
}

fn row(args: &Args, size: u64, percent: u64) -> anyhow::Result<RowResult> {
    // What is rewritten exists on both sides; the hashes take 8 bytes a page.
    let needed = size / 100 * percent * 2 + size / 512;
    let available = available_memory()?;
    if needed > available / 100 * USABLE_PERCENT {
        return Ok(RowResult::Skipped(format!(
            "needs {}, {} are at hand",
            bytes(needed),
            bytes(available)
        )));
    }
    let memory = GuestMemory::pc(size, Backing::Sealed)?;
    let dest_memory = memory.same_layout()?;
    let mut source = Vm::connect(&args.source, memory)?;
    let mut dest = Vm::connect(&args.dest, dest_memory)?;
    source.enable_devices()?;
    let load = Load {
        window_percent: percent,
        rate: args.rate.div_ceil(args.source.len() as u64),
        seed: 1,
    };
    let mut workload = Workload::start(&mut source, load)?;
    workload.warm_up(&mut source, WARM_UP)?;
    let options = Options {
        max_passes: args.passes,
        depth: Depth::End,
        ..Options::default()
    };
    let outcome = migrate(&mut source, &mut dest, options, &mut workload, None, &mut Silent)?;
    Ok(RowResult::Migrated(Figures {
        seconds: outcome.seconds,
        downtime: outcome.downtime,
        pages: outcome.pages(),
        redundant_pages: outcome.redundant_pages(),
        wire_bytes: outcome.wire_bytes(),
        device_bytes: outcome.device_bytes(),
        passed: outcome.passed(),
    }))
}

/// Bytes that the system can give without swapping.
fn available_memory() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc/meminfo has no MemAvailable")?;
    Ok(number.parse::<u64>()? << 10)
}
