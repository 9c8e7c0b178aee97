//! The report as one page for a browser.
//!
//! The page needs nothing but itself: styles, script and pictures are in it, and its content security policy lets a browser
//! fetch nothing and run nothing else. Names, messages and logs come from guests and servers; all of them are escaped, and
//! freed of what steers terminals. Each chart has its figures in a table behind it, and without the script only the
//! tooltips are plainer.

mod chart;
mod downtime;
mod heat;
mod passes;
mod scenario;
mod summary;
mod throughput;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::vm::{Outcome, VmReport};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page.
pub fn html(report: &VmReport) -> String {
    page(report).into_string()
}

fn page(report: &VmReport) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (summary::headline(report)) " · vfio-user-check vm" }
                // Both are parts of this program.
                style { (PreEscaped(STYLE)) }
            }
            body {
                (summary::summary(report))
                main {
                    @for (index, scenario) in report.scenarios.iter().enumerate() {
                        (scenario::section(index, scenario))
                    }
                }
                div #tip role="tooltip" hidden {}
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Only the page's own style and script count, known by their hashes.
fn policy() -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// The place of a scenario in the page.
fn anchor(index: usize) -> String {
    format!("scenario-{}", index + 1)
}

/// How a scenario ended, as a mark that does not rely on its colour.
fn badge(outcome: &Outcome) -> Markup {
    let (class, mark, word) = match outcome {
        Outcome::Passed => ("badge passed", "✓", "passed"),
        Outcome::Failed(_) => ("badge failed", "✗", "failed"),
        Outcome::Skipped(_) => ("badge skipped", "–", "skipped"),
    };
    html! { span class=(class) { span aria-hidden="true" { (mark) " " } (word) } }
}

#[cfg(test)]
mod tests;
