//! The checks as JUnit XML, which CI systems read.

use std::fmt::{self, Write};

use crate::migrate::Outcome;

/// One test case for the oracle, and one for each generator's replay.
pub fn junit(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_suite(&mut out, outcome);
    out
}

struct Case {
    name: String,
    problems: Vec<String>,
}

fn write_suite(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let lost = outcome.verdict.lost.iter().map(ToString::to_string).collect();
    let mut cases = vec![Case {
        name: "every page arrived".to_owned(),
        problems: lost,
    }];
    cases.extend(outcome.replays.iter().map(|replay| Case {
        name: format!("the generator of {} goes on", replay.device),
        problems: replay.problems.clone(),
    }));
    let failures = cases.iter().filter(|case| !case.problems.is_empty()).count();
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuite name="vfio-user-check migrate" tests="{}" failures="{failures}" time="{:.3}">"#,
        cases.len(),
        outcome.seconds
    )?;
    for case in &cases {
        write_case(out, case)?;
    }
    writeln!(out, "</testsuite>")
}

fn write_case(out: &mut String, case: &Case) -> fmt::Result {
    let name = escaped(&case.name);
    if case.problems.is_empty() {
        return writeln!(out, r#"  <testcase classname="migrate" name="{name}"/>"#);
    }
    writeln!(out, r#"  <testcase classname="migrate" name="{name}">"#)?;
    writeln!(out, r#"    <failure message="{}">"#, escaped(&case.problems[0]))?;
    for problem in &case.problems {
        writeln!(out, "{}", escaped(problem))?;
    }
    writeln!(out, "    </failure>")?;
    writeln!(out, "  </testcase>")
}

/// Text as it may stand in an element or an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write most control characters.
            other if other.is_control() && other != '\n' && other != '\t' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_path_cannot_break_the_document() {
        assert_eq!(escaped("a<b>&\"c\"\u{1}"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}");
    }
}
