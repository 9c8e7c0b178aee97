//! The command line: commands, their options, configuration files, and texts that teach.
//!
//! It turns what the user wrote into devices, has them served and reports what went wrong.
//!
//! Not here: what every device program does (`pagetrail::program`), opening sockets and serving clients
//! (`pagetrail::host`).

mod args;
mod config;
mod models;
mod topics;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, ValueEnum};

use pagetrail::host::VmConfig;
use pagetrail::passthrough::HostIommu;
use pagetrail::program::{LogFormat, serve};

use args::{Cli, Command, DmaArgs, VfioArgs};
use models::{Kind, Passthrough};

/// The program's name, in front of what it says.
const NAME: &str = "pagetrail";

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse_from(with_implied_command(std::env::args_os()));
    if let Err(error) = cli.log.init() {
        return LogFormat::Text.fail(NAME, &error.into());
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli.log.format.fail(NAME, &error),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Dma(args) => Ok(serve(vec![single_device(args)?])?),
        Command::Vfio(args) => vfio(args),
        Command::Serve(args) => Ok(serve(config::load(&args.file)?)?),
        Command::Describe(args) => print(&args.kind.about().describe(&args.binary)?),
        Command::Completions(args) => {
            // Into memory first: the generator panics when the output has gone.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
            print(&String::from_utf8(script).context("the completions are not text")?)
        }
        Command::Help(args) => print(&topics::text(args.topic.as_deref())?),
    }
}

/// A VM with the one device of `pagetrail dma`.
fn single_device(args: DmaArgs) -> anyhow::Result<VmConfig> {
    let model = models::dma(args.workers)?;
    Ok(VmConfig {
        name: "vm".to_owned(),
        devices: vec![args.device.config(Kind::Dma.name(), model)?],
    })
}

/// Serves the one device of `pagetrail vfio`, or says what tracks it.
fn vfio(args: VfioArgs) -> anyhow::Result<()> {
    let iommu = HostIommu::open(&args.iommufd, models::leaves(args.large_pages))?;
    let model = models::passthrough(Passthrough {
        pci: args.source.pci,
        cdev: args.source.cdev,
        iommu,
        bar_mmap: !args.no_bar_mmap,
        tracker: args.tracker,
        assume_all_dirty: args.assume_all_dirty,
    })?;
    if args.explain {
        return print(&format!("{}\n", model.explanation()));
    }
    let device = args.device.config(Kind::Vfio.name(), model)?;
    Ok(serve(vec![VmConfig {
        name: "vm".to_owned(),
        devices: vec![device],
    }])?)
}

/// Prints to stdout. A reader that has seen enough (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// A program called `pagetrail-KIND` is `pagetrail KIND`: what starts a device program after the conventions gives it options
/// only.
fn with_implied_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let name = args
        .first()
        .map(std::path::Path::new)
        .and_then(|path| path.file_name()?.to_str());
    let kind = name.and_then(|name| Kind::from_str(name.strip_prefix("pagetrail-")?, false).ok());
    if let Some(kind) = kind {
        args.insert(1, kind.name().into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_named_after_a_device_is_that_device() {
        let words = |args: &[&str]| with_implied_command(args.iter().map(OsString::from));
        assert_eq!(
            words(&["/usr/bin/pagetrail-dma", "--fd=3"]),
            ["/usr/bin/pagetrail-dma", "dma", "--fd=3"]
        );
        assert_eq!(words(&["pagetrail", "dma"]), ["pagetrail", "dma"]);
        assert_eq!(words(&["pagetrail-1.0", "dma"]), ["pagetrail-1.0", "dma"]);
        assert!(words(&[]).is_empty());
    }
}
