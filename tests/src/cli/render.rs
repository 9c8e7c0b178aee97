//! `vfio-user-check render`.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Ended;
use crate::report::vm::VmReport;
use crate::report::{self, vm};

const EXAMPLES: &str = "\
Examples:
  The page of a run that was made elsewhere:
    vfio-user-check render report.json --html=report.html

Exit status: 0 every scenario of the report passed, 1 one failed, 2 the report cannot be read,
4 nothing was checked.";

/// Options of `render`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// The report, as `vm --json` wrote it.
    #[arg(value_name = "FILE")]
    report: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

/// Where a report of VMs' migrations goes.
#[derive(Debug, clap::Args)]
pub(super) struct Outputs {
    /// Write the report as JSON to a file, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the scenarios as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write one page for a browser that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Outputs {
    /// Writes the files. A run that is cut short leaves what it had by then.
    pub(super) fn write_files(&self, report: &VmReport) -> anyhow::Result<()> {
        if let Some(path) = self.json.as_deref().filter(|path| *path != Path::new("-")) {
            write_file(path, &serde_json::to_string(report)?)?;
        }
        if let Some(path) = &self.junit {
            write_file(path, &vm::suite(report).xml())?;
        }
        if let Some(path) = &self.html {
            write_file(path, &report::html(report))?;
        }
        Ok(())
    }

    /// Writes the files, and to standard output the summary, or the JSON where that is to go there.
    pub(super) fn write(&self, report: &VmReport) -> anyhow::Result<Ended> {
        self.write_files(report)?;
        let mut out = std::io::stdout().lock();
        if self.json.as_deref() == Some(Path::new("-")) {
            writeln!(out, "{}", serde_json::to_string(report)?)?;
        } else {
            write!(out, "{}", vm::text(report))?;
        }
        Ok(ended(report))
    }
}

fn ended(report: &VmReport) -> Ended {
    if report.failed().next().is_some() {
        return Ended::Failed;
    }
    match report.passed().next() {
        Some(_) => Ended::Passed,
        None => Ended::NotMade,
    }
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn run(args: &Args) -> anyhow::Result<Ended> {
    let path = args.report.display();
    let file = File::open(&args.report).with_context(|| format!("cannot open {path}"))?;
    let report: VmReport = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{path} is no report of `vfio-user-check vm`"))?;
    args.outputs.write(&report)
}
