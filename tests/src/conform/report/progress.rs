//! A progress line on standard error.

use std::time::Duration;

use indicatif::ProgressStyle;

/// Shows which check is being tried; where standard error is no terminal it shows nothing.
pub struct Progress {
    bar: indicatif::ProgressBar,
}

impl Progress {
    /// A line for so many checks.
    pub fn new(checks: usize) -> Self {
        let bar = indicatif::ProgressBar::new(checks as u64);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    /// Check `number`, from 1, is being tried.
    pub fn tries(&self, number: usize, name: &str) {
        self.bar.set_position(number as u64);
        self.bar.set_message(name.to_owned());
    }

    /// Lets something else write to the terminal.
    pub fn apart<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the line off the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
