//! `vfio-user-check vm`.

mod host;
mod progress;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};

use self::progress::Progress;
use super::Ended;
use super::render::Outputs;
use super::size::parse_size;
use crate::conform::registry::Filter;
use crate::qemu::MemorySize;
use crate::record::Recorder;
use crate::report::vm::{RunInfo, ScenarioReport, VmReport};
use crate::scenario::{self, Scenario, Setup, launcher};
use crate::spawn::ServerCommand;

const EXAMPLES: &str = "\
A complete example:
    qemu=$(scripts/build-qemu)      # QEMU with migration of vfio-user devices; prints its path
    guest=$(scripts/build-guest)    # a kernel and an initrd that drives devices; prints the folder
    cargo build --release
    vfio-user-check vm --qemu=\"$qemu\" --kernel=\"$guest/vmlinuz\" --initrd=\"$guest/initrd\" \\
        --source-server='target/release/pagetrail dma --socket-path={socket}' \\
        --dest-server='target/release/pagetrail dma --socket-path={socket}' \\
        --html=report.html --json=report.json --junit=report.xml
    xdg-open report.html

More examples:
  What there is; one scenario; all but by pattern:
    vfio-user-check vm --list
    vfio-user-check vm --scenario=flat-out …
    vfio-user-check vm --scenario='kill-*' --scenario=cancel …

  With more memory, and therefore more passes over it:
    vfio-user-check vm --memory=1G --scenario=flat-out …

  From an older version of a server to a newer one:
    vfio-user-check vm --source-server='./old --socket-path={socket}' \\
        --dest-server='./new --socket-path={socket}' …

The servers:
  A command line is taken apart by the shell's rules of quoting and run without a shell, as often
  as a scenario needs it. {socket} stands for the path where it is to listen. A server that has
  several devices in one process gets {sockets} instead: the word with it is there once for each.
  Devices must be `dma` devices (docs/src/dma-device.md): the guest drives them. A scenario that
  needs a server or a QEMU that was not given is skipped, and says what it lacks.

What is checked:
  Each scenario boots guests, drives their devices and does what --list says. After each migration,
  before the guest goes on, all memory of both sides is compared byte by byte; the guest's program
  then checks its work from inside, and what the devices wrote is checked from outside.

Exit status: 0 all that was tried passed, 1 a scenario failed, 2 usage, or QEMU does not
run, 4 every scenario was skipped.";

/// Options of `vm`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Say what scenarios there are, and run none.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    programs: Programs,
    /// Run only the scenarios whose name holds this text or, with `*`, `?` or `[`, matches this pattern; several add up.
    #[arg(long, value_name = "TEXT|PATTERN")]
    scenario: Vec<Filter>,
    #[command(flatten)]
    outputs: Outputs,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// What scenarios are run with.
#[derive(Debug, clap::Args)]
struct Programs {
    /// QEMU, with migration of vfio-user devices.
    #[arg(long, required_unless_present = "list", value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// QEMU as it comes, for the scenarios that do not migrate.
    #[arg(long, value_name = "PATH")]
    stock_qemu: Option<PathBuf>,
    /// The guest's kernel.
    #[arg(long, required_unless_present = "list", value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// The guest's initrd, with the program that drives the devices.
    #[arg(long, required_unless_present = "list", value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// The guests' memory, from 256M to 2G. All of it is compared after each migration.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = memory_size)]
    memory: MemorySize,
    /// Command line of the server on one side, with `{socket}`.
    #[arg(long, required_unless_present = "list", value_name = "COMMAND")]
    source_server: Option<ServerCommand>,
    /// Command line of the server on the other side, with `{socket}`.
    #[arg(long, required_unless_present = "list", value_name = "COMMAND")]
    dest_server: Option<ServerCommand>,
    /// Command line of a server whose devices differ from the others', and must refuse their state.
    #[arg(long, value_name = "COMMAND")]
    different_server: Option<ServerCommand>,
    /// Command line of a server whose devices do not migrate.
    #[arg(long, value_name = "COMMAND")]
    unmigratable_server: Option<ServerCommand>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Ended> {
    let scenarios = chosen(&args.scenario);
    ensure!(
        !scenarios.is_empty(),
        "no scenario is called that; --list tells their names"
    );
    if args.list {
        return list(&scenarios);
    }
    let setup = args.programs.setup()?;
    let mut report = VmReport {
        run: args.programs.run_info()?,
        scenarios: Vec::new(),
    };
    let progress = if args.quiet {
        Progress::Silent
    } else {
        Progress::new(scenarios.len())
    };
    let began = Instant::now();
    for scenario in scenarios {
        report.scenarios.push(play(scenario, &setup, &progress));
        report.run.seconds = began.elapsed().as_secs_f64();
        args.outputs.write_files(&report)?;
    }
    progress.finish();
    args.outputs.write(&report)
}

/// The scenarios that one of `filters` chooses; all of them where there is none.
fn chosen(filters: &[Filter]) -> Vec<&'static Scenario> {
    let wanted = |scenario: &&Scenario| {
        filters.is_empty() || filters.iter().any(|filter| filter.matches(scenario.name))
    };
    scenario::ALL.iter().filter(wanted).collect()
}

fn list(scenarios: &[&Scenario]) -> anyhow::Result<Ended> {
    let width = scenarios
        .iter()
        .map(|scenario| scenario.name.len())
        .max()
        .unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for scenario in scenarios {
        writeln!(out, "{:<width$}  {}", scenario.name, scenario.description)?;
    }
    Ok(Ended::Passed)
}

fn play(scenario: &Scenario, setup: &Setup, progress: &Progress) -> ScenarioReport {
    progress.begins(scenario.name);
    let listener = progress.clone();
    let recorder = Recorder::telling(move |phase| listener.phase(phase));
    let report = scenario::run_with(scenario, setup, recorder);
    progress.ended(&report);
    report
}

fn memory_size(text: &str) -> Result<MemorySize, String> {
    let bytes = parse_size(text)?;
    MemorySize::new(bytes).ok_or_else(|| "a VM can have whole mebibytes from 256M to 2G".to_owned())
}

impl Programs {
    fn setup(&self) -> anyhow::Result<Setup> {
        let path = |path: &Option<PathBuf>, what: &str| {
            let path = path.as_ref().with_context(|| format!("no {what} was given"))?;
            std::fs::metadata(path).with_context(|| format!("the {what}, {}", path.display()))?;
            anyhow::Ok(path.clone())
        };
        let launcher = |server: &Option<ServerCommand>| server.as_ref().map(launcher);
        Ok(Setup {
            qemu: path(&self.qemu, "QEMU")?,
            stock_qemu: self.stock_qemu.clone(),
            kernel: path(&self.kernel, "kernel")?,
            initrd: path(&self.initrd, "initrd")?,
            memory: self.memory,
            source: launcher(&self.source_server).context("no server of the source was given")?,
            dest: launcher(&self.dest_server).context("no server of the destination was given")?,
            different: launcher(&self.different_server),
            unmigratable: launcher(&self.unmigratable_server),
        })
    }

    fn run_info(&self) -> anyhow::Result<RunInfo> {
        let path = |path: &Option<PathBuf>| {
            path.as_ref()
                .map_or(String::new(), |path| path.display().to_string())
        };
        let server = |server: &Option<ServerCommand>| {
            server
                .as_ref()
                .map_or(String::new(), |server| server.text().to_owned())
        };
        let qemu = self.qemu.as_deref().context("no QEMU was given")?;
        Ok(RunInfo {
            tool: format!("vfio-user-check {}", env!("CARGO_PKG_VERSION")),
            qemu: host::qemu_version(qemu)?,
            qemu_binary: path(&self.qemu),
            kernel: path(&self.kernel),
            initrd: path(&self.initrd),
            source_server: server(&self.source_server),
            dest_server: server(&self.dest_server),
            memory_bytes: self.memory.bytes(),
            host: host::host(),
            date: host::date(),
            seconds: 0.0,
        })
    }
}
