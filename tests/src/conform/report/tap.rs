//! The report in the Test Anything Protocol, version 14.

use std::io::{self, Write};

use crate::conform::run::{CheckReport, Verdict};

/// Writes the plan, and a test point for each check as it ends.
pub struct Tap<W> {
    out: W,
}

impl<W: Write> Tap<W> {
    /// A report that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// So many checks will be tried.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn begins(&mut self, checks: usize) -> io::Result<()> {
        writeln!(self.out, "TAP version 14\n1..{checks}")
    }

    /// Check `number`, from 1, has ended.
    ///
    /// # Errors
    ///
    /// What the output says.
    pub fn ended(&mut self, number: usize, check: &CheckReport) -> io::Result<()> {
        let name = described(&check.name);
        match &check.verdict {
            Verdict::Pass => writeln!(self.out, "ok {number} - {name}"),
            Verdict::Skip(reason) => writeln!(self.out, "ok {number} - {name} # SKIP {}", one_line(reason)),
            Verdict::Fail(reason) => writeln!(
                self.out,
                "not ok {number} - {name}\n  ---\n  message: {}\n  promise: {}\n  source: {}\n  ...",
                quoted(reason),
                quoted(&check.about),
                quoted(&check.source)
            ),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A test point's description, in which `#` would begin a directive.
fn described(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}

/// A single-quoted scalar of YAML.
fn quoted(text: &str) -> String {
    format!("'{}'", one_line(text).replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::Tap;
    use crate::conform::run::{CheckReport, Verdict};

    fn lines(verdict: Verdict) -> String {
        let mut out = Vec::new();
        let check = CheckReport {
            name: "a/b".to_owned(),
            source: "it's written".to_owned(),
            about: "A promise.".to_owned(),
            verdict,
            seconds: 0.0,
        };
        Tap::new(&mut out).ended(3, &check).expect("a vector takes it");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn a_test_point_is_one_line_and_a_failure_has_its_reason() {
        assert_eq!(lines(Verdict::Pass), "ok 3 - a/b\n");
        assert_eq!(
            lines(Verdict::Skip("no\nneed".to_owned())),
            "ok 3 - a/b # SKIP no need\n"
        );
        let failure = lines(Verdict::Fail("bad\nreply".to_owned()));
        assert!(
            failure.starts_with("not ok 3 - a/b\n  ---\n  message: 'bad reply'\n"),
            "{failure}"
        );
        assert!(failure.contains("source: 'it''s written'"), "{failure}");
    }
}
