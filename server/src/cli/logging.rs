//! The log: to stderr, filtered, and limited in rate.

use std::io::IsTerminal;

use anyhow::Context;
use pagetrail::ratelimit::{Limits, RateLimit};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use super::args::{LogArgs, LogFormat};

/// Installs the log. Called once.
///
/// # Errors
///
/// When the filter cannot be read.
pub(super) fn init(args: &LogArgs) -> anyhow::Result<()> {
    let log = tracing_subscriber::registry()
        .with(filter(&args.filter)?)
        .with(RateLimit::new(Limits::default()));
    let lines = fmt::layer().with_writer(std::io::stderr);
    match args.format {
        LogFormat::Text => log
            .with(
                lines
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false),
            )
            .init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
    }
    Ok(())
}

fn filter(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(text).with_context(|| {
        format!(
            "--log={text} is not a filter: write a level (info), or pairs (info,pagetrail::session=debug)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_pairs() {
        for text in ["info", "warn,pagetrail=trace", "off"] {
            filter(text).expect(text);
        }
        for text in ["pagetrail=loud", "info,=,"] {
            let error = filter(text).expect_err(text);
            assert!(error.to_string().contains("--log="), "{error}");
        }
    }
}
