//! What a device adds to the migration of a VM: the same VM without a device, with one that does nothing, and with one that writes
//! flat out, in turns.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Interval, Output};
use crate::qemu::MemorySize;
use crate::report::vm::{Migration, Outcome};
use crate::report::{bytes, seconds};
use crate::scenario::{Load, Setup, launcher, measure};
use crate::spawn::ServerCommand;

const LOADS: [Load; 3] = [Load::NoDevice, Load::Idle, Load::FlatOut];

/// Options of `bench vms`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// QEMU, with migration of vfio-user devices.
    #[arg(long, value_name = "PATH")]
    qemu: PathBuf,
    /// The guest's kernel.
    #[arg(long, value_name = "PATH")]
    kernel: PathBuf,
    /// The guest's initrd, with the program that drives the devices.
    #[arg(long, value_name = "PATH")]
    initrd: PathBuf,
    /// Command line of the server, with `{socket}`.
    #[arg(long, value_name = "COMMAND")]
    server: ServerCommand,
    /// Migrations of each kind.
    #[arg(long, default_value_t = 11, value_name = "N")]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

/// One migration.
#[derive(Clone, Copy, Debug, Serialize)]
struct Taken {
    downtime: f64,
    seconds: f64,
    wire_bytes: u64,
    resent_bytes: u64,
}

/// All migrations of a kind, against those without a device of the same rounds.
#[derive(Debug, Serialize)]
struct Row {
    load: &'static str,
    downtime: Interval,
    downtime_ratio: Interval,
    seconds: Interval,
    seconds_ratio: Interval,
    wire_bytes: Interval,
    resent_bytes: Interval,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let setup = setup(args);
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        rounds.push(self::round(&setup, round)?);
    }
    let rows = (0..LOADS.len())
        .map(|index| row(&rounds, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    args.output.write(&table(&rows, args.rounds)?, &rows)
}

fn setup(args: &Args) -> Setup {
    let server = launcher(&args.server);
    Setup {
        qemu: args.qemu.clone(),
        stock_qemu: None,
        kernel: args.kernel.clone(),
        initrd: args.initrd.clone(),
        memory: MemorySize::LEAST,
        source: server.clone(),
        dest: server,
        different: None,
        unmigratable: None,
    }
}

/// Each load once, in an order that changes from round to round; the result is in the order of [`LOADS`].
fn round(setup: &Setup, round: usize) -> anyhow::Result<[Taken; 3]> {
    let mut taken = [None; 3];
    for step in 0..LOADS.len() {
        let index = (round + step) % LOADS.len();
        taken[index] = Some(migrate(setup, LOADS[index])?);
    }
    let [Some(none), Some(idle), Some(flat_out)] = taken else {
        unreachable!("each index comes once");
    };
    Ok([none, idle, flat_out])
}

fn migrate(setup: &Setup, load: Load) -> anyhow::Result<Taken> {
    let report = measure(load, setup);
    if report.outcome != Outcome::Passed {
        bail!("{}: {:?}\n{}", report.name, report.outcome, report.log);
    }
    let [migration] = report.migrations.as_slice() else {
        bail!("{}: {} migrations", report.name, report.migrations.len());
    };
    taken(migration).with_context(|| report.name.clone())
}

fn taken(migration: &Migration) -> anyhow::Result<Taken> {
    Ok(Taken {
        downtime: migration.downtime.context("QEMU told no downtime")?,
        seconds: migration.total.context("QEMU told no time")?,
        wire_bytes: migration.wire_bytes,
        resent_bytes: migration.resent_bytes,
    })
}

fn row(rounds: &[[Taken; 3]], index: usize) -> anyhow::Result<Row> {
    let interval = |figure: &dyn Fn(&[Taken; 3]) -> f64| {
        let samples: Vec<f64> = rounds.iter().map(figure).collect();
        Interval::of(&samples).context("no migration was made")
    };
    // QEMU tells downtime in whole milliseconds: none is taken for one.
    let downtime = |taken: Taken| taken.downtime.max(1e-3);
    Ok(Row {
        load: name(LOADS[index]),
        downtime: interval(&|round| round[index].downtime)?,
        downtime_ratio: interval(&|round| downtime(round[index]) / downtime(round[0]))?,
        seconds: interval(&|round| round[index].seconds)?,
        seconds_ratio: interval(&|round| round[index].seconds / round[0].seconds)?,
        wire_bytes: interval(&|round| round[index].wire_bytes as f64)?,
        resent_bytes: interval(&|round| round[index].resent_bytes as f64)?,
    })
}

fn name(load: Load) -> &'static str {
    match load {
        Load::NoDevice => "no device",
        Load::Idle => "idle device",
        Load::FlatOut => "flat out",
    }
}

#[expect(clippy::cast_sign_loss)] // Medians of counts.
fn table(rows: &[Row], rounds: usize) -> anyhow::Result<String> {
    let mut out = format!(
        "migrations of a VM with QEMU's defaults (128 MiB/s, 300 ms), {rounds} of each, in turns; medians, ratios to no device\n"
    );
    writeln!(
        out,
        "  {:<12} {:>10} {:>22} {:>10} {:>22} {:>10} {:>11}",
        "", "downtime", "ratio", "time", "ratio", "wire bytes", "sent again"
    )?;
    for row in rows {
        writeln!(
            out,
            "  {:<12} {:>10} {:>22} {:>10} {:>22} {:>10} {:>11}",
            row.load,
            seconds(row.downtime.median),
            ratio(row.downtime_ratio),
            seconds(row.seconds.median),
            ratio(row.seconds_ratio),
            bytes(row.wire_bytes.median as u64),
            bytes(row.resent_bytes.median as u64),
        )?;
    }
    Ok(out)
}

fn ratio(interval: Interval) -> String {
    format!(
        "{:.2} [{:.2}, {:.2}]",
        interval.median, interval.low, interval.high
    )
}
