//! The report as JSON.

use crate::conform::run::Report;

/// The whole report: `sockets`, `seconds`, and `checks` with `name`, `source`, `about`, `verdict` (`pass`, `skip` or `fail`),
/// `reason` of the last two, and `seconds`.
///
/// # Errors
///
/// None that a report can bring about.
pub fn json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}
