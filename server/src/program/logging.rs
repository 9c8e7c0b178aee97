//! The log: to stderr, filtered, and limited in rate.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use super::args::{LogArgs, LogFormat};
use crate::ratelimit::{Limits, RateLimit};

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("--log={text} is not a filter: write a level (info), or pairs (info,pagetrail::session=debug)")]
pub struct FilterError {
    text: String,
    source: ParseError,
}

impl LogArgs {
    /// Installs the log. Called once.
    ///
    /// # Errors
    ///
    /// [`FilterError`].
    pub fn init(&self) -> Result<(), FilterError> {
        let log = tracing_subscriber::registry()
            .with(filter(&self.filter)?)
            .with(RateLimit::new(Limits::default()));
        let lines = fmt::layer().with_writer(std::io::stderr);
        match self.format {
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
}

fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(text).map_err(|source| FilterError {
        text: text.to_owned(),
        source,
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
