//! The report as a JUnit suite: a test case for each scenario.

use super::model::{Outcome, ScenarioReport, VmReport};
use crate::report::plain::plain;
use crate::report::{Case, CaseResult, Suite};

/// The suite.
pub fn suite(report: &VmReport) -> Suite {
    Suite {
        name: "vfio-user-check vm".to_owned(),
        cases: report.scenarios.iter().map(case).collect(),
        seconds: report.run.seconds,
    }
}

fn case(scenario: &ScenarioReport) -> Case {
    let (result, log) = match &scenario.outcome {
        Outcome::Passed => (CaseResult::Passed, String::new()),
        Outcome::Failed(message) => (CaseResult::Failed(vec![plain(message)]), plain(&scenario.log)),
        Outcome::Skipped(reason) => (CaseResult::Skipped(plain(reason)), String::new()),
    };
    Case {
        class: "vm".to_owned(),
        name: scenario.name.clone(),
        result,
        seconds: Some(scenario.seconds),
        log,
    }
}
