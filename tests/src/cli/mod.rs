//! The command line.
//!
//! Exit codes: 0 the check passed, 1 it failed, 2 it could not be made (usage, or nothing to check). `conform` and what tells of
//! VMs have 4 for a check that was skipped whole, as the kernel's selftests do.

mod conform;
mod migrate;
mod render;
mod size;
mod vm;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use size::parse_size;

/// Checks vfio-user device servers from the client's side.
#[derive(Debug, Parser)]
#[command(name = "vfio-user-check", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to log on standard error, for example `debug` or `vfio_user_check=trace`.
    #[arg(
        long,
        global = true,
        default_value = "warn",
        env = "RUST_LOG",
        value_name = "FILTER"
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Live-migrate the devices of one VM between two sets of servers and verify every page.
    Migrate(migrate::Args),
    /// Check a server against the specification, message by message.
    Conform(conform::Args),
    /// Migrate VMs with real guests between QEMU processes, scenario by scenario.
    Vm(Box<vm::Args>),
    /// Make a page for a browser, or a JUnit suite, of a report that was saved as JSON.
    Render(render::Args),
    /// Measure servers from the client's side.
    #[command(subcommand)]
    Bench(crate::bench::Command),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    Failed,
    /// There was nothing to check.
    NotMade,
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::new(&cli.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let ended = match cli.command {
        Command::Migrate(args) => migrate::run(&args),
        Command::Conform(args) => conform::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Bench(command) => crate::bench::run(&command).map(|()| Ended::Passed),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "vfio-user-check",
                &mut std::io::stdout(),
            );
            Ok(Ended::Passed)
        }
    };
    match ended {
        Ok(Ended::Passed) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::FAILURE,
        Ok(Ended::NotMade) => ExitCode::from(4),
        Err(error) => {
            eprintln!("vfio-user-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
