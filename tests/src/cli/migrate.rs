//! `vfio-user-check migrate`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use super::Ended;
use super::size::{parse_page_size, parse_size};
use crate::migrate::churn::Churn;
use crate::migrate::{Load, MigrateError, Options, Outcome, PreCopy, Silent, Workload, run as run_migration};
use crate::oracle::Depth;
use crate::report;
use crate::vmm::{Backing, GuestMemory, Vm};

const EXAMPLES: &str = "\
Examples:
  One device, its generator writing flat out into half of a 256 MiB guest:
    pagetrail dma --socket-path=/tmp/a.sock &
    pagetrail dma --socket-path=/tmp/b.sock &
    vfio-user-check migrate --source=/tmp/a.sock --dest=/tmp/b.sock --memory=256M --window=50

  Two devices of one VM (one connection each), with a report for machines and a picture:
    vfio-user-check migrate --source=/tmp/a0.sock --source=/tmp/a1.sock \\
        --dest=/tmp/b0.sock --dest=/tmp/b1.sock --json=report.json --svg=report.svg

  Any other vfio-user server that migrates, left alone while it does:
    vfio-user-check migrate --source=/run/x.sock --dest=/run/y.sock --drive=none

How it judges:
  Guest memory lives here, in two memfds. Every page is hashed in every pass: one that changed
  without being reported is a suspect, and it is a failure if no later report names it. At the end
  both memories are compared byte by byte. Where the device is `dma` its generator must go on at
  the destination, and its window must hold exactly what the generator's definition says.

Exit status: 0 every page arrived, 1 pages were lost or the migration failed, 2 it could not be set
up.";

/// Who keeps the devices busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drive {
    /// Program the generator where the device is a `dma`; leave others alone.
    Auto,
    /// Program the generator; every device must be a `dma`.
    Dma,
    /// Leave every device alone.
    None,
}

/// Options of `migrate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of a device to migrate; give it once for each device of the VM.
    #[arg(long, required = true, value_name = "PATH")]
    source: Vec<PathBuf>,
    /// Socket of the device that takes over, in the order of --source.
    #[arg(long, required = true, value_name = "PATH")]
    dest: Vec<PathBuf>,
    /// Guest memory.
    #[arg(long, default_value = "256M", value_parser = parse_size, value_name = "SIZE")]
    memory: u64,
    /// Page size of the dirty reports.
    #[arg(long, default_value = "4K", value_parser = parse_page_size, value_name = "SIZE")]
    page_size: u64,
    /// Live passes after which the source is stopped, whatever is still dirty.
    #[arg(long, default_value_t = 8, value_name = "N")]
    passes: u32,
    /// Stop the source once a pass had at most this many pages.
    #[arg(long, default_value_t = 256, value_name = "PAGES")]
    threshold: u64,
    /// Who keeps the devices busy.
    #[arg(long, value_enum, default_value_t = Drive::Auto)]
    drive: Drive,
    /// Per cent of guest memory that the generators write to, all windows together.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=90), value_name = "PERCENT")]
    window: u64,
    /// Page writes per second of each device; 0 is flat out.
    #[arg(long, default_value_t = 0, value_name = "N")]
    rate: u64,
    /// Seed of the generators.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Leave memory that no device writes empty, instead of filling it: large guests then cost only what is written.
    #[arg(long)]
    sparse: bool,
    /// Whether device state is read while the devices run.
    #[arg(long, value_enum, default_value_t = PreCopy::Auto)]
    pre_copy: PreCopy,
    /// Between the passes plug and unplug memory, reset devices and restart logging.
    #[arg(long)]
    churn: bool,
    /// How much the oracle looks at.
    #[arg(long, value_enum, default_value_t = Depth::Full)]
    oracle: Depth,
    /// Write the report as JSON to a file, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a picture of the passes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the checks as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the report only: no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// The two VMs, ready to migrate.
struct Setup {
    source: Vm,
    dest: Vm,
    workload: Workload,
    churn: Option<Churn>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Ended> {
    ensure!(
        args.source.len() == args.dest.len(),
        MigrateError::Unpaired {
            sources: args.source.len(),
            dests: args.dest.len()
        }
    );
    ensure!(
        args.memory >= 4 << 20 && args.memory.is_multiple_of(1 << 20),
        "--memory is a multiple of 1M and at least 4M"
    );
    let mut setup = set_up(args)?;
    let options = Options {
        page_size: args.page_size,
        max_passes: args.passes,
        threshold: args.threshold,
        pre_copy: args.pre_copy,
        depth: args.oracle,
        ..Options::default()
    };
    match migrate(&mut setup, options, args) {
        Ok(outcome) => conclude(args, &outcome),
        Err(error) => {
            eprintln!(
                "vfio-user-check: the migration failed: {:#}",
                anyhow::Error::from(error)
            );
            Ok(Ended::Failed)
        }
    }
}

fn set_up(args: &Args) -> anyhow::Result<Setup> {
    let memory = GuestMemory::pc(args.memory, Backing::Sealed)?;
    if !args.sparse {
        memory.fill(args.seed);
    }
    let dest_memory = memory.same_layout()?;
    let mut source = Vm::connect(&args.source, Arc::clone(&memory)).context("the source cannot be set up")?;
    let mut dest = Vm::connect(&args.dest, dest_memory).context("the destination cannot be set up")?;
    source.enable_devices().context("the source cannot be set up")?;
    let churn = args
        .churn
        .then(|| Churn::prepare(&mut source, &mut dest))
        .transpose()?;
    let workload = set_load(args, &mut source)?;
    Ok(Setup {
        source,
        dest,
        workload,
        churn,
    })
}

fn set_load(args: &Args, source: &mut Vm) -> anyhow::Result<Workload> {
    if args.drive == Drive::None {
        return Ok(Workload::default());
    }
    let load = Load {
        window_percent: args.window,
        rate: args.rate,
        seed: args.seed,
    };
    let workload = Workload::start(source, load)?;
    if args.drive == Drive::Dma && workload.driven() < source.device_count() {
        bail!("--drive=dma: a source device is not a `dma`; use --drive=auto, or --drive=none");
    }
    Ok(workload)
}

fn migrate(setup: &mut Setup, options: Options, args: &Args) -> Result<Outcome, MigrateError> {
    let Setup {
        source,
        dest,
        workload,
        churn,
    } = setup;
    if args.quiet {
        return run_migration(source, dest, options, workload, churn.as_mut(), &mut Silent);
    }
    let mut progress = report::ProgressBar::default();
    let outcome = run_migration(source, dest, options, workload, churn.as_mut(), &mut progress);
    progress.finish();
    outcome
}

fn conclude(args: &Args, outcome: &Outcome) -> anyhow::Result<Ended> {
    let json_on_stdout = args.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(outcome)?;
        if json_on_stdout {
            writeln!(std::io::stdout(), "{json}")?;
        } else {
            write_file(path, &json)?;
        }
    }
    if let Some(path) = &args.svg {
        write_file(path, &report::svg(outcome))?;
    }
    if let Some(path) = &args.junit {
        write_file(path, &report::junit(outcome))?;
    }
    if !json_on_stdout {
        write!(std::io::stdout(), "{}", report::text(outcome))?;
    }
    Ok(if outcome.passed() {
        Ended::Passed
    } else {
        Ended::Failed
    })
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
