//! Measurements that only a client can make. Two things are compared in interleaved pairs in one run, and what is told is the
//! median of the pairs' ratios with its confidence interval: on a machine that does other things too, nothing else holds.
#![allow(clippy::cast_precision_loss)] // Figures for people.

mod copies;
mod migrations;
mod mmio;
mod reports;
mod stats;
mod vms;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use stats::{Interval, paired};

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Register round trips by message: one server against another.
    Mmio(mmio::Args),
    /// Copies by a `dma` device: DMA logging on and read, off, and memcpy of the same buffers.
    Copies(copies::Args),
    /// Migrations: sizes of the guest by parts of it that are rewritten.
    Migrations(migrations::Args),
    /// Migrations of VMs with QEMU: what a device adds to downtime, time and bytes.
    Vms(vms::Args),
    /// Readings of a large guest's DMA log, through QEMU's client.
    Reports(reports::Args),
}

/// Where the figures go.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Write the figures as JSON to a file, or to standard output with `-` in place of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Output {
    fn write(&self, table: &str, figures: &impl Serialize) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(figures)?;
        match self.json.as_deref() {
            Some(path) if path == Path::new("-") => writeln!(std::io::stdout(), "{json}")?,
            Some(path) => {
                std::fs::write(path, json)?;
                write!(std::io::stdout(), "{table}")?;
            }
            None => write!(std::io::stdout(), "{table}")?,
        }
        Ok(())
    }
}

/// Measures.
///
/// # Errors
///
/// Whatever stops the measurement.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Mmio(args) => mmio::run(args),
        Command::Copies(args) => copies::run(args),
        Command::Migrations(args) => migrations::run(args),
        Command::Vms(args) => vms::run(args),
        Command::Reports(args) => reports::run(args),
    }
}
