//! The report for a terminal: a line for each scenario, and why those that failed did.

use std::fmt::{self, Write};

use super::model::{Outcome, ScenarioReport, VmReport};
use crate::report::plain::plain;
use crate::report::units::{bytes, duration, seconds};

/// Lines of a failed scenario's log that are shown: its end.
const LOG_LINES: usize = 20;

/// The whole report.
pub fn text(report: &VmReport) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &VmReport) -> fmt::Result {
    let names = report.scenarios.iter().map(|scenario| scenario.name.len());
    let width = names.max().unwrap_or(0).max("scenario".len());
    writeln!(
        out,
        "      {:<width$}        time   downtime  device state  wire bytes",
        "scenario"
    )?;
    for scenario in &report.scenarios {
        write_line(out, scenario, width)?;
    }
    for scenario in report.failed() {
        write_failure(out, scenario)?;
    }
    let (failed, passed, skipped) = (
        report.failed().count(),
        report.passed().count(),
        report.skipped().count(),
    );
    writeln!(out)?;
    let verdict = match (failed, passed) {
        (0, 0) => "SKIP",
        (0, _) => "PASS",
        _ => "FAIL",
    };
    writeln!(
        out,
        "{verdict}: {passed} passed, {failed} failed, {skipped} skipped"
    )
}

fn write_line(out: &mut String, scenario: &ScenarioReport, width: usize) -> fmt::Result {
    let mark = match &scenario.outcome {
        Outcome::Passed => "pass",
        Outcome::Failed(_) => "FAIL",
        Outcome::Skipped(_) => "skip",
    };
    write!(out, "{mark}  {:<width$}", plain(&scenario.name))?;
    match &scenario.outcome {
        Outcome::Skipped(reason) => writeln!(out, "  {}", plain(reason)),
        _ => writeln!(
            out,
            " {:>11} {:>10} {:>13} {:>11}",
            duration(scenario.seconds),
            scenario.downtime().map_or("-".to_owned(), seconds),
            bytes(scenario.device_bytes()),
            bytes(scenario.wire_bytes()),
        ),
    }
}

fn write_failure(out: &mut String, scenario: &ScenarioReport) -> fmt::Result {
    let Outcome::Failed(message) = &scenario.outcome else {
        return Ok(());
    };
    writeln!(out, "\nFAIL {}: {}", plain(&scenario.name), plain(message))?;
    let log = plain(&scenario.log);
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        writeln!(out, "     | {line}")?;
    }
    Ok(())
}
