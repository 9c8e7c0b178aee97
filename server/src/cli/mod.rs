//! The command line: options, configuration files, logs, signals, and the service manager.
//!
//! It turns what the user wrote into a [`Host`](pagetrail::host::Host), runs it and reports what went wrong. The vfio-user
//! specification's "Backend Program Conventions" are kept: `--socket-path`, `--fd`, SIGTERM, and no daemonising.
//!
//! Not here: opening sockets and serving clients, which are the host's.

mod args;
mod config;
mod describe;
mod inherited;
mod launch;
mod logging;
mod models;
mod signals;
mod topics;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, ValueEnum};

use args::{Cli, Command, LogFormat};
use models::Kind;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse_from(with_implied_command(std::env::args_os()));
    if let Err(error) = logging::init(&cli.log) {
        return fail(&error, LogFormat::Text);
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, cli.log.format),
    }
}

/// Says why the program ends; as a message of the log where something other than a person reads it.
fn fail(error: &anyhow::Error, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Text => eprintln!("pagetrail: {error:#}"),
        LogFormat::Json => tracing::error!("{error:#}"),
    }
    ExitCode::FAILURE
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Dma(args) => launch::run(vec![launch::single_device(&args)?]),
        Command::Serve(args) => launch::run(config::load(&args.file)?),
        Command::Describe(args) => print(&describe::description(args.kind, &args.binary)?),
        Command::Completions(args) => {
            // Into memory first: the generator panics when the output has gone.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "pagetrail", &mut script);
            print(&String::from_utf8(script).context("the completions are not text")?)
        }
        Command::Help(args) => print(&topics::text(args.topic.as_deref())?),
    }
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
