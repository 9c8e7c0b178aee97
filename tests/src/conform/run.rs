//! Tries checks one after the other.

use std::time::Instant;

use serde::Serialize;

use super::check::{Check, Stop};
use super::probe::Probe;
use super::subject::Subject;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "lowercase")]
pub enum Verdict {
    /// The server keeps the promise.
    Pass,
    /// Not tried, for this reason.
    Skip(String),
    /// The server breaks the promise, in this way.
    Fail(String),
}

/// One check that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The check's name.
    pub name: String,
    /// Where the promise is written down.
    pub source: String,
    /// The promise.
    pub about: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Seconds it took.
    pub seconds: f64,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The server's sockets.
    pub sockets: Vec<String>,
    /// The checks, in the order in which they were tried.
    pub checks: Vec<CheckReport>,
    /// Seconds in all.
    pub seconds: f64,
}

impl Report {
    /// How many checks passed.
    pub fn passed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Pass))
    }

    /// How many checks failed.
    pub fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Fail(_)))
    }

    /// How many checks were skipped.
    pub fn skipped(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Skip(_)))
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.checks.iter().filter(|check| is(&check.verdict)).count()
    }
}

/// Is told how a run goes on.
pub trait Observer {
    /// So many checks will be tried.
    fn begins(&mut self, checks: usize);

    /// Check `number`, from 1, is being tried.
    fn tries(&mut self, number: usize, check: &Check);

    /// Check `number` has ended.
    fn ended(&mut self, number: usize, report: &CheckReport);
}

/// An observer that looks away.
pub struct Silent;

impl Observer for Silent {
    fn begins(&mut self, _checks: usize) {}
    fn tries(&mut self, _number: usize, _check: &Check) {}
    fn ended(&mut self, _number: usize, _report: &CheckReport) {}
}

/// Tries `checks` on a server that [`Subject::settle`] has found in order.
///
/// After each check the server must serve a new client: one that hangs or has died makes that check fail. Where it cannot be
/// reached any more the checks that are left are skipped.
pub fn run(subject: &Subject, checks: &[Check], observer: &mut dyn Observer) -> Report {
    let start = Instant::now();
    let mut report = Report {
        sockets: subject
            .sockets()
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        ..Report::default()
    };
    let mut gone = None;
    observer.begins(checks.len());
    for (number, check) in (1..).zip(checks) {
        observer.tries(number, check);
        let began = Instant::now();
        let verdict = match &gone {
            Some(reason) => Verdict::Skip(String::clone(reason)),
            None => attempt(subject, check, &mut gone),
        };
        let result = CheckReport {
            name: check.name().to_owned(),
            source: check.source().to_string(),
            about: check.about().to_owned(),
            verdict,
            seconds: began.elapsed().as_secs_f64(),
        };
        observer.ended(number, &result);
        report.checks.push(result);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
}

/// Tries one check, and looks after the server. `gone` says why there is no server any more.
fn attempt(subject: &Subject, check: &Check, gone: &mut Option<String>) -> Verdict {
    let verdict = match check.run(&Probe::new(subject)) {
        Ok(()) => Verdict::Pass,
        Err(Stop::Skip(reason)) => Verdict::Skip(reason),
        Err(Stop::Fail(reason)) => Verdict::Fail(reason),
    };
    let Err(error) = subject.settle() else {
        return verdict;
    };
    if !(subject.can_start_again() && subject.settle().is_ok()) {
        *gone = Some(format!("the server is gone since {}", check.name()));
    }
    let error = anyhow::Error::from(error);
    Verdict::Fail(match verdict {
        Verdict::Fail(reason) => format!("{reason}; and afterwards {error:#}"),
        _ => format!("afterwards {error:#}"),
    })
}
