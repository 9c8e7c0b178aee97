//! The options, and the help that `--help` gives.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use pagetrail::passthrough::HostIommu;
use pagetrail::program::{DeviceArgs, LogArgs};

use super::models::{Kind, Tracker};

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

Without --socket-path and --fd the socket is the one that the service manager passes (pagetrail
help systemd).";

const VFIO_EXAMPLES: &str = "\
Examples:
  Hand a PCI device over to VFIO, and serve it (as root, or as a user with access to both files):
    modprobe vfio-pci
    echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override
    echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind
    echo 0000:01:00.0 > /sys/bus/pci/drivers_probe
    pagetrail vfio --pci=0000:01:00.0 --socket-path=/tmp/vf.sock

  What would track its dirty pages, and why:
    pagetrail vfio --pci=0000:01:00.0 --explain

  The guest, with memory that the device can reach:
    qemu-system-x86_64 -machine q35,memory-backend=ram \\
      -object memory-backend-memfd,id=ram,size=1G,share=on \\
      -device '{\"driver\": \"vfio-user-pci\", \"socket\": {\"type\": \"unix\", \"path\": \"/tmp/vf.sock\"}}' ...

All of the guest's memory is locked: LimitMEMLOCK=infinity, or ulimit -l. A VM with several devices,
emulated ones among them, is served by one process: pagetrail help serve. More: pagetrail help
passthrough";

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

    /// Serve a device of the host's that a driver of VFIO's has, passed through.
    #[command(after_help = VFIO_EXAMPLES)]
    Vfio(VfioArgs),

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
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct VfioArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,

    #[command(flatten)]
    pub(super) device: DeviceArgs,

    /// The kernel's iommufd.
    #[arg(long, value_name = "PATH", default_value = HostIommu::PATH)]
    pub(super) iommufd: PathBuf,

    /// Keep the device's file from the client, which reaches BARs by messages then, and slowly.
    ///
    /// A client that has the file to map BARs from can do anything else with the device, too (see the threat model).
    #[arg(long)]
    pub(super) no_bar_mmap: bool,

    /// What may track what the device writes.
    #[arg(long, value_enum, value_name = "TRACKER", default_value_t = Tracker::Any)]
    pub(super) tracker: Tracker,

    /// If nothing can track what the device writes, report every page as dirty, always. Without this the VM cannot be migrated then.
    #[arg(long)]
    pub(super) assume_all_dirty: bool,

    /// Let page tables have entries as large as memory allows. A write then dirties all of a large page.
    #[arg(long)]
    pub(super) large_pages: bool,

    /// Say what tracks the device's dirty pages, and why, and serve nothing.
    #[arg(long)]
    pub(super) explain: bool,
}

/// Which device.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SourceArgs {
    /// Its PCI address, as lspci -D writes it: 0000:01:00.0.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) pci: Option<String>,

    /// Its character device: /dev/vfio/devices/vfioN.
    #[arg(long = "device", value_name = "PATH")]
    pub(super) cdev: Option<PathBuf>,
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
