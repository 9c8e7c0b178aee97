//! The options, and the help that `--help` gives.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use pagetrail::program::{DeviceArgs, LogArgs};

use super::models::Kind;

const EXAMPLES: &str = "\
Examples:
  One device on a socket:
    pagetrail dma --socket-path=/tmp/dma.sock

  A guest with that device:
    qemu-system-x86_64 -machine q35,memory-backend=ram \\
      -object memory-backend-memfd,id=ram,size=1G,share=on \\
      -device '{\"driver\": \"vfio-user-pci\", \"socket\": {\"type\": \"unix\", \"path\": \"/tmp/dma.sock\"}}' ...

  Several devices of several VMs:
    pagetrail serve /etc/pagetrail.toml

Topics, with more to read: pagetrail help";

const DMA_EXAMPLES: &str = "\
Examples:
  Listen on a socket; clients come one after the other:
    pagetrail dma --socket-path=/tmp/dma.sock --workers=4

  Serve the client behind a descriptor that the starting program left open, and end with it:
    pagetrail dma --fd=3

  The guest, with memory that the device can reach:
    qemu-system-x86_64 -machine q35,memory-backend=ram \\
      -object memory-backend-memfd,id=ram,size=1G,share=on \\
      -device '{\"driver\": \"vfio-user-pci\", \"socket\": {\"type\": \"unix\", \"path\": \"/tmp/dma.sock\"}}' ...

Without --socket-path and --fd the socket is the one that the service manager passes (pagetrail help systemd).";

const SERVE_EXAMPLES: &str = "\
Example:
  pagetrail serve /etc/pagetrail.toml

  with this file:
    [[vm]]
    name = \"web\"

    [[vm.device]]
    kind = \"dma\"
    socket-path = \"/run/pagetrail/web-dma0.sock\"
    workers = 4

More: pagetrail help serve";

const DESCRIBE_EXAMPLES: &str = "\
Example:
  pagetrail describe dma > /usr/share/vfio-user/50-pagetrail-dma.json
  ln -s pagetrail /usr/bin/pagetrail-dma

A program of that name is `pagetrail dma`: what starts it gives it --socket-path or --fd only.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  pagetrail completions bash > /etc/bash_completion.d/pagetrail
  pagetrail completions zsh > ~/.zfunc/_pagetrail
  pagetrail completions fish > ~/.config/fish/completions/pagetrail.fish";

const HELP_EXAMPLES: &str = "\
Examples:
  pagetrail help
  pagetrail help migration
  pagetrail help dma";

/// PCI devices for QEMU's vfio-user-pci that live-migrate without losing a page.
#[derive(Debug, Parser)]
#[command(name = "pagetrail", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) log: LogArgs,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve a DMA engine with a page generator, the reference device.
    #[command(after_help = DMA_EXAMPLES)]
    Dma(DmaArgs),

    /// Serve the devices of one or more VMs, as a file says.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),

    /// Print the JSON description of a device program, for /usr/share/vfio-user.
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),

    /// Print a shell's completion script.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),

    /// Explain a topic or a command.
    #[command(after_help = HELP_EXAMPLES)]
    Help(HelpArgs),
}

#[derive(Debug, Args)]
pub(super) struct DmaArgs {
    #[command(flatten)]
    pub(super) device: DeviceArgs,

    /// Worker threads, which are also the generator's lanes: 1 to 64. Both ends of a migration must agree.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) workers: u32,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The configuration, in TOML.
    #[arg(value_name = "FILE.toml")]
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The device.
    #[arg(value_enum, default_value_t = Kind::Dma)]
    pub(super) kind: Kind,

    /// Where the program is installed under a name that selects the device.
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/pagetrail-dma")]
    pub(super) binary: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    pub(super) shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct HelpArgs {
    /// A topic, or a command. Without one: the list.
    pub(super) topic: Option<String>,
}

#[cfg(test)]
mod tests;
