//! Checks as JUnit XML, which CI systems read.

use std::fmt::{self, Write};

use crate::migrate::Outcome;

/// Test cases that were run together.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// One test case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it belongs to: CI systems make a tree of it.
    pub class: String,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub result: CaseResult,
    /// Seconds that it took, where that is known.
    pub seconds: Option<f64>,
    /// What was written meanwhile.
    pub log: String,
}

/// How a test case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseResult {
    /// It held.
    Passed,
    /// It did not, and what did not: the first problem is the case's message.
    Failed(Vec<String>),
    /// It was not tried, and why.
    Skipped(String),
}

impl CaseResult {
    fn of_problems(problems: Vec<String>) -> Self {
        if problems.is_empty() {
            Self::Passed
        } else {
            Self::Failed(problems)
        }
    }
}

impl Suite {
    /// The suite as a document.
    pub fn xml(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let count =
            |wanted: fn(&CaseResult) -> bool| self.cases.iter().filter(|case| wanted(&case.result)).count();
        writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(
            out,
            r#"<testsuite name="{}" tests="{}" failures="{}" skipped="{}" time="{:.3}">"#,
            escaped(&self.name),
            self.cases.len(),
            count(|result| matches!(result, CaseResult::Failed(_))),
            count(|result| matches!(result, CaseResult::Skipped(_))),
            self.seconds
        )?;
        for case in &self.cases {
            write_case(out, case)?;
        }
        writeln!(out, "</testsuite>")
    }
}

fn write_case(out: &mut String, case: &Case) -> fmt::Result {
    write!(
        out,
        r#"  <testcase classname="{}" name="{}""#,
        escaped(&case.class),
        escaped(&case.name)
    )?;
    if let Some(seconds) = case.seconds {
        write!(out, r#" time="{seconds:.3}""#)?;
    }
    if case.result == CaseResult::Passed && case.log.is_empty() {
        return writeln!(out, "/>");
    }
    writeln!(out, ">")?;
    match &case.result {
        CaseResult::Passed => {}
        CaseResult::Skipped(why) => writeln!(out, r#"    <skipped message="{}"/>"#, escaped(why))?,
        CaseResult::Failed(problems) => write_failure(out, problems)?,
    }
    if !case.log.is_empty() {
        writeln!(out, "    <system-out>{}</system-out>", escaped(&case.log))?;
    }
    writeln!(out, "  </testcase>")
}

fn write_failure(out: &mut String, problems: &[String]) -> fmt::Result {
    let first = problems.first().map_or("", String::as_str);
    writeln!(out, r#"    <failure message="{}">"#, escaped(first))?;
    for problem in problems {
        writeln!(out, "{}", escaped(problem))?;
    }
    writeln!(out, "    </failure>")
}

/// A migration's checks: one test case for the oracle, and one for each generator's replay.
pub fn junit(outcome: &Outcome) -> String {
    let case = |name: String, problems: Vec<String>| Case {
        class: "migrate".to_owned(),
        name,
        result: CaseResult::of_problems(problems),
        seconds: None,
        log: String::new(),
    };
    let lost = outcome.verdict.lost.iter().map(ToString::to_string).collect();
    let mut cases = vec![case("every page arrived".to_owned(), lost)];
    cases.extend(outcome.replays.iter().map(|replay| {
        let name = format!("the generator of {} goes on", replay.device);
        case(name, replay.problems.clone())
    }));
    let suite = Suite {
        name: "vfio-user-check migrate".to_owned(),
        cases,
        seconds: outcome.seconds,
    };
    suite.xml()
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
            // XML 1.0 has no way to write most control characters, and some that are no characters at all.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other if other.is_control() && other != '\n' && other != '\t' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Case, CaseResult, Suite, escaped};

    #[test]
    fn a_path_cannot_break_the_document() {
        assert_eq!(escaped("a<b>&\"c\"\u{1}"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}");
    }

    #[test]
    fn a_suite_counts_what_failed_and_what_was_skipped() {
        let case = |name: &str, result| Case {
            class: "vm".to_owned(),
            name: name.to_owned(),
            result,
            seconds: Some(1.5),
            log: "said".to_owned(),
        };
        let suite = Suite {
            name: "suite".to_owned(),
            cases: vec![
                case("good", CaseResult::Passed),
                case(
                    "bad",
                    CaseResult::Failed(vec!["first".to_owned(), "second".to_owned()]),
                ),
                case("none", CaseResult::Skipped("no <kernel>".to_owned())),
            ],
            seconds: 3.0,
        };
        let xml = suite.xml();
        assert!(
            xml.contains(r#"tests="3" failures="1" skipped="1" time="3.000""#),
            "{xml}"
        );
        assert!(
            xml.contains(r#"<failure message="first">"#) && xml.contains("second"),
            "{xml}"
        );
        assert!(xml.contains(r#"<skipped message="no &lt;kernel&gt;"/>"#), "{xml}");
        assert_eq!(xml.matches("<system-out>said</system-out>").count(), 3);
    }
}
