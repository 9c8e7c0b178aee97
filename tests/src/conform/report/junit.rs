//! The checks as JUnit XML, which CI systems read.

use std::fmt::{self, Write};

use crate::conform::run::{CheckReport, Report, Verdict};
use crate::report::escaped;

/// One test case for each check; the topic is its class.
pub fn junit(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_suite(&mut out, report);
    out
}

fn write_suite(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuite name="vfio-user-check conform" tests="{}" failures="{}" skipped="{}" time="{:.3}">"#,
        report.checks.len(),
        report.failed(),
        report.skipped(),
        report.seconds
    )?;
    report
        .checks
        .iter()
        .try_for_each(|check| write_case(out, check))?;
    writeln!(out, "</testsuite>")
}

fn write_case(out: &mut String, check: &CheckReport) -> fmt::Result {
    let (topic, name) = check.name.split_once('/').unwrap_or(("", &check.name));
    write!(
        out,
        r#"  <testcase classname="{}" name="{}" time="{:.3}""#,
        escaped(topic),
        escaped(name),
        check.seconds
    )?;
    match &check.verdict {
        Verdict::Pass => writeln!(out, "/>"),
        Verdict::Skip(reason) => writeln!(
            out,
            ">\n    <skipped message=\"{}\"/>\n  </testcase>",
            escaped(reason)
        ),
        Verdict::Fail(reason) => writeln!(
            out,
            ">\n    <failure message=\"{}\">{}\n{}</failure>\n  </testcase>",
            escaped(reason),
            escaped(&check.about),
            escaped(&check.source)
        ),
    }
}
