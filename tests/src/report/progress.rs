//! A progress bar on standard error.

use std::time::Duration;

use indicatif::ProgressStyle;

use super::units::{bytes, count, seconds};
use crate::migrate::{Event, Observer};

/// Shows what a migration is at; where standard error is no terminal it shows nothing.
pub struct ProgressBar {
    bar: indicatif::ProgressBar,
}

impl Default for ProgressBar {
    fn default() -> Self {
        let bar = indicatif::ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }
}

impl ProgressBar {
    /// Takes the bar off the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for ProgressBar {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Stage(stage) => self.bar.set_message(stage),
            Event::PassBegins { number, pages } => self
                .bar
                .set_message(format!("pass {number}: {} pages", count(pages))),
            Event::PassDone(pass) => self.bar.println(format!(
                "pass {}: {} pages, {} in {}",
                pass.number,
                count(pass.pages),
                bytes(pass.wire_bytes()),
                seconds(pass.seconds)
            )),
        }
    }
}
