//! One scenario: what it did, its figures, its charts and its log.

use maud::{Markup, html};

use super::chart::Span;
use super::{anchor, badge, downtime, heat, passes, throughput};
use crate::report::plain::plain;
use crate::report::units::{bytes, duration, seconds};
use crate::report::vm::{Ending, Migration, Outcome, ScenarioReport};

/// Bytes of a log that are shown: its end.
const LOG_BYTES: usize = 128 << 10;

/// Part of the migrations' time that the charts show before and after them.
const MARGIN: f64 = 0.06;

/// Seconds that they show before and after them, at least.
const LEAST_MARGIN: f64 = 0.25;

pub(super) fn section(index: usize, scenario: &ScenarioReport) -> Markup {
    let span = span(scenario);
    html! {
        section id=(anchor(index)) {
            h2 { (plain(&scenario.name)) " " (badge(&scenario.outcome)) }
            p .description { (plain(&scenario.description)) }
            @match &scenario.outcome {
                Outcome::Passed => {}
                Outcome::Failed(message) => { pre .message.failed { (plain(message)) } }
                Outcome::Skipped(reason) => { p .message.skipped { (plain(reason)) } }
            }
            @if !scenario.migrations.is_empty() {
                (tiles(scenario))
            }
            div .charts {
                (passes::chart(scenario))
                (throughput::chart(scenario, span))
                (heat::chart(scenario, span))
                (downtime::chart(scenario))
            }
            @if !scenario.migrations.is_empty() {
                (migrations(scenario))
            }
            @if !scenario.phases.is_empty() {
                (phases(scenario))
            }
            @if !scenario.log.is_empty() {
                (log(scenario))
            }
        }
    }
}

/// The time that the charts show: the migrations, and a little before and after.
fn span(scenario: &ScenarioReport) -> Span {
    let began = scenario.migrations.iter().map(|migration| migration.began);
    let ended = scenario.migrations.iter().map(|migration| migration.ended);
    let (Some(began), Some(ended)) = (began.reduce(f64::min), ended.reduce(f64::max)) else {
        return Span::new(0.0, scenario.seconds);
    };
    let margin = ((ended - began) * MARGIN).max(LEAST_MARGIN);
    Span::new(
        (began - margin).max(0.0),
        (ended + margin).min(scenario.seconds.max(ended)),
    )
}

fn tiles(scenario: &ScenarioReport) -> Markup {
    let totals = scenario.migrations.iter().filter_map(|migration| migration.total);
    let total = totals.reduce(|sum, total| sum + total);
    let passes: usize = scenario
        .migrations
        .iter()
        .map(|migration| migration.passes.len())
        .sum();
    let facts = [
        ("downtime", scenario.downtime().map_or("–".to_owned(), seconds)),
        ("migrating", total.map_or("–".to_owned(), duration)),
        ("passes", passes.to_string()),
        ("on the wire", bytes(scenario.wire_bytes())),
        ("device state", bytes(scenario.device_bytes())),
        ("sent again", bytes(scenario.resent_bytes())),
    ];
    html! {
        dl .tiles {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn migrations(scenario: &ScenarioReport) -> Markup {
    html! {
        details {
            summary { "Migrations" }
            div .scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "migration" }
                            th scope="col" { "ended" }
                            th scope="col" .number { "total" }
                            th scope="col" .number { "downtime" }
                            th scope="col" .number { "limit" }
                            th scope="col" .number { "passes" }
                            th scope="col" .number { "on the wire" }
                            th scope="col" .number { "device state" }
                            th scope="col" .number { "sent again" }
                        }
                    }
                    tbody {
                        @for migration in &scenario.migrations { (migration_row(migration)) }
                    }
                }
            }
        }
    }
}

fn migration_row(migration: &Migration) -> Markup {
    let time = |value: Option<f64>| value.map_or("–".to_owned(), seconds);
    let ending = match &migration.ending {
        Ending::Completed => "completed".to_owned(),
        Ending::Cancelled => "cancelled".to_owned(),
        Ending::Failed(why) => format!("failed: {}", plain(why)),
        Ending::Unknown => "nobody saw its end".to_owned(),
    };
    html! {
        tr {
            th scope="row" { (plain(&migration.name)) }
            td { (ending) }
            td .number { (time(migration.total)) }
            td .number { (time(migration.stood_still())) }
            td .number { (time(migration.downtime_limit)) }
            td .number { (migration.passes.len()) }
            td .number { (bytes(migration.wire_bytes)) }
            td .number { (bytes(migration.device_bytes)) }
            td .number { (bytes(migration.resent_bytes)) }
        }
    }
}

fn phases(scenario: &ScenarioReport) -> Markup {
    html! {
        details {
            summary { "Phases" }
            div .scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "phase" }
                            th scope="col" .number { "from" }
                            th scope="col" .number { "took" }
                        }
                    }
                    tbody {
                        @for phase in &scenario.phases {
                            tr {
                                th scope="row" { (plain(&phase.name)) }
                                td .number { (seconds(phase.began)) }
                                td .number { (seconds(phase.ended - phase.began)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn log(scenario: &ScenarioReport) -> Markup {
    let failed = matches!(scenario.outcome, Outcome::Failed(_));
    let log = plain(&scenario.log);
    let start = log.ceil_char_boundary(log.len().saturating_sub(LOG_BYTES));
    html! {
        details open[failed] {
            summary { "Log" }
            @if start > 0 {
                p .note { "The first " (bytes(start as u64)) " are left out." }
            }
            pre .log tabindex="0" { (&log[start..]) }
        }
    }
}
