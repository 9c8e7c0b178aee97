//! Measurements from the client's side.

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Measures.
///
/// # Errors
///
/// Whatever stops the measurement.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match *command {}
}
