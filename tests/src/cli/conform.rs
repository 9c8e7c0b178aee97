//! `vfio-user-check conform`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Ended;
use crate::conform::registry::{Filter, chosen};
use crate::conform::report::{self, Progress, Tap, Text};
use crate::conform::{Check, CheckReport, Observer, Report, Subject, run as run_checks};

const EXAMPLES: &str = "\
Examples:
  A server that is running already:
    vfio-user-check conform --socket-path=/run/device.sock

  A server that ends with its client, or that a check may bring down, started as often as needed:
    vfio-user-check conform --socket-path=/tmp/s.sock --run='./server /tmp/s.sock'

  Two devices of one VM, for the checks of several devices:
    pagetrail serve host.toml &
    vfio-user-check conform --socket-path=/tmp/0.sock --socket-path=/tmp/1.sock

  One topic, one check, all that is about mapping; and what there is:
    vfio-user-check conform --socket-path=/tmp/s.sock --filter='states/*'
    vfio-user-check conform --socket-path=/tmp/s.sock --filter=dma/maps-may-touch
    vfio-user-check conform --socket-path=/tmp/s.sock --filter=map
    vfio-user-check conform --list

  For machines:
    vfio-user-check conform --socket-path=/tmp/s.sock --tap --junit=conform.xml --json=conform.json

What it asserts:
  What the vfio-user specification demands (QEMU's docs/interop/vfio-user.rst) or, where that
  refers to the kernel's VFIO interface, what linux/vfio.h does; --list names the place for each
  check. What a server need not have makes the checks of it skipped, with the reason. The device
  must not be in use: it is reset, its memory is unmapped, its migration state changes. What a
  device writes can be checked only where it can be told to write, which is `dma`.

Exit status: 0 all that was tried passed, 1 a check failed, 2 usage, 4 every check
was skipped, or there is no server.";

/// Options of `conform`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of the server; give it once for each device, all of one VM.
    #[arg(long, required_unless_present = "list", value_name = "PATH")]
    socket_path: Vec<PathBuf>,
    /// Start the server with this line for the shell, and again whenever it has ended.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
    /// Say what is checked, and where it is demanded, and check nothing.
    #[arg(long)]
    list: bool,
    /// Try only the checks whose name holds this text or, with `*`, `?` or `[`, matches this pattern; several add up.
    #[arg(long, value_name = "TEXT|PATTERN")]
    filter: Vec<Filter>,
    /// Seconds that the server may take for one request.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds, value_name = "SECONDS")]
    timeout: f64,
    /// Report in the Test Anything Protocol.
    #[arg(long)]
    tap: bool,
    /// Write the checks as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the report as JSON to a file, or to standard output with `-` in place of the other.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.001..=3600.0).contains(&seconds) {
        return Ok(seconds);
    }
    Err("a time limit is 0.001 to 3600 seconds".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<Ended> {
    let checks = chosen(&args.filter);
    ensure!(
        !checks.is_empty(),
        "no check is called that; --list tells their names"
    );
    if args.list {
        report::list(&mut io::stdout().lock(), &checks)?;
        return Ok(Ended::Passed);
    }
    let subject = subject(args)?;
    if let Err(error) = subject.settle() {
        eprintln!("vfio-user-check: {:#}", anyhow::Error::from(error));
        return Ok(Ended::NotMade);
    }
    let mut output = Output::new(args, checks.len());
    let report = run_checks(&subject, &checks, &mut output);
    output.finish(&report)?;
    write_files(args, &report)?;
    Ok(match (report.failed(), report.passed()) {
        (0, 0) => Ended::NotMade,
        (0, _) => Ended::Passed,
        _ => Ended::Failed,
    })
}

fn subject(args: &Args) -> anyhow::Result<Subject> {
    let timeout = Duration::from_secs_f64(args.timeout);
    Ok(match &args.run {
        Some(command) => Subject::started_by(command.clone(), args.socket_path.clone(), timeout)?,
        None => Subject::new(args.socket_path.clone(), timeout),
    })
}

fn write_files(args: &Args, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &args.junit {
        write_file(path, &report::junit(report))?;
    }
    match args.json.as_deref() {
        None => Ok(()),
        Some(path) if path == Path::new("-") => Ok(writeln!(io::stdout(), "{}", report::json(report)?)?),
        Some(path) => write_file(path, &report::json(report)?),
    }
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What goes to standard output while checks are tried.
enum Format {
    Text(Text<io::Stdout>),
    Tap(Tap<io::Stdout>),
    Nothing,
}

struct Output {
    format: Format,
    progress: Option<Progress>,
    /// The first error of writing; the checks go on meanwhile.
    result: io::Result<()>,
}

impl Output {
    fn new(args: &Args, checks: usize) -> Self {
        let format = match (args.tap, args.json.as_deref()) {
            (true, _) => Format::Tap(Tap::new(io::stdout())),
            (false, Some(path)) if path == Path::new("-") => Format::Nothing,
            (false, _) => Format::Text(Text::new(io::stdout())),
        };
        Self {
            format,
            progress: (!args.quiet).then(|| Progress::new(checks)),
            result: Ok(()),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Format) -> io::Result<()>) {
        if self.result.is_err() {
            return;
        }
        let format = &mut self.format;
        self.result = match &self.progress {
            Some(progress) => progress.apart(|| write(format)),
            None => write(format),
        };
    }

    fn finish(mut self, report: &Report) -> io::Result<()> {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        self.write(|format| match format {
            Format::Text(text) => text.finish(report),
            Format::Tap(_) | Format::Nothing => Ok(()),
        });
        self.result
    }
}

impl Observer for Output {
    fn begins(&mut self, checks: usize) {
        self.write(|format| match format {
            Format::Tap(tap) => tap.begins(checks),
            Format::Text(_) | Format::Nothing => Ok(()),
        });
    }

    fn tries(&mut self, number: usize, check: &Check) {
        if let Some(progress) = &self.progress {
            progress.tries(number, check.name());
        }
    }

    fn ended(&mut self, number: usize, check: &CheckReport) {
        self.write(|format| match format {
            Format::Text(text) => text.ended(check),
            Format::Tap(tap) => tap.ended(number, check),
            Format::Nothing => Ok(()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLES, chosen, parse_seconds};

    #[test]
    fn the_examples_choose_checks_that_there_are() {
        let filters: Vec<&str> = EXAMPLES
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("--filter="))
            .collect();
        assert!(!filters.is_empty());
        for filter in filters {
            let filter = filter.trim_matches('\'').parse().expect("a filter");
            assert!(!chosen(&[filter]).is_empty(), "{EXAMPLES}");
        }
    }

    #[test]
    fn a_time_limit_is_a_time() {
        assert_eq!(parse_seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "1e9", "soon"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
