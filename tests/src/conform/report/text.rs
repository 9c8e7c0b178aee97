//! The report for a terminal.

use std::io::{self, Write};

use crate::conform::check::Check;
use crate::conform::run::{CheckReport, Report, Verdict};

/// Writes a line for each check as it ends, and the sum.
pub struct Text<W> {
    out: W,
}

impl<W: Write> Text<W> {
    /// A report that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// One check has ended.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn ended(&mut self, check: &CheckReport) -> io::Result<()> {
        match &check.verdict {
            Verdict::Pass => writeln!(self.out, "ok    {}", check.name),
            Verdict::Skip(reason) => writeln!(self.out, "skip  {}\n      {reason}", check.name),
            Verdict::Fail(reason) => writeln!(
                self.out,
                "FAIL  {}\n      {reason}\n      {}\n      ({})",
                check.name, check.about, check.source
            ),
        }
    }

    /// The run has ended.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn finish(&mut self, report: &Report) -> io::Result<()> {
        writeln!(
            self.out,
            "\n{} checks in {}: {} passed, {} failed, {} skipped",
            report.checks.len(),
            crate::report::seconds(report.seconds),
            report.passed(),
            report.failed(),
            report.skipped()
        )
    }
}

/// The checks themselves: name, promise, source.
///
/// # Errors
///
/// What the output says.
pub fn list(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    checks.iter().try_for_each(|check| {
        writeln!(
            out,
            "{}\n    {}\n    ({})",
            check.name(),
            check.about(),
            check.source()
        )
    })
}
