//! How far a run is, on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::seconds;
use crate::report::vm::{Outcome, ScenarioReport};

/// Shows which scenario is at what, and how each has ended; where standard error is no terminal only the latter.
#[derive(Clone)]
pub(super) enum Progress {
    /// Says nothing.
    Silent,
    /// A line for each scenario that has ended.
    Lines,
    /// A line that changes as well.
    Bar(ProgressBar),
}

impl Progress {
    /// A line for so many scenarios.
    pub(super) fn new(scenarios: usize) -> Self {
        let bar = ProgressBar::new(scenarios as u64);
        if bar.is_hidden() {
            return Self::Lines;
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {elapsed} {prefix}: {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Bar(bar)
    }

    /// A scenario begins.
    pub(super) fn begins(&self, name: &str) {
        if let Self::Bar(bar) = self {
            bar.set_prefix(name.to_owned());
            bar.set_message("begins");
        }
    }

    /// The scenario is at something.
    pub(super) fn phase(&self, name: &str) {
        if let Self::Bar(bar) = self {
            bar.set_message(name.to_owned());
        }
    }

    /// The scenario has ended.
    pub(super) fn ended(&self, report: &ScenarioReport) {
        let mark = match report.outcome {
            Outcome::Passed => "pass",
            Outcome::Failed(_) => "FAIL",
            Outcome::Skipped(_) => "skip",
        };
        let line = format!("{mark}  {}  ({})", report.name, seconds(report.seconds));
        match self {
            Self::Silent => {}
            Self::Lines => eprintln!("{line}"),
            Self::Bar(bar) => {
                bar.inc(1);
                bar.println(line);
            }
        }
    }

    /// Takes the line off the terminal.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
