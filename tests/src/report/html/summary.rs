//! The top of the page: the verdict, what failed and why, and all scenarios in a table.

use maud::{Markup, html};

use super::{anchor, badge};
use crate::report::plain::plain;
use crate::report::units::{bytes, duration, seconds};
use crate::report::vm::{Outcome, RunInfo, ScenarioReport, VmReport};

pub(super) fn summary(report: &VmReport) -> Markup {
    html! {
        header {
            p .kicker { "vfio-user-check vm · live migration with QEMU" }
            h1 { (headline(report)) }
            (counts(report))
            (failures(report))
            (scenarios(report))
            (run_info(&report.run))
        }
    }
}

/// The verdict in one line.
pub(super) fn headline(report: &VmReport) -> String {
    let failed = report.failed().count();
    let passed = report.passed().count();
    match (failed, passed) {
        (0, 0) => "Nothing was checked".to_owned(),
        (0, 1) => "The scenario passed".to_owned(),
        (0, _) => format!("All {passed} scenarios passed"),
        (1, 0) => "The scenario failed".to_owned(),
        _ => format!("{failed} of {} scenarios failed", failed + passed),
    }
}

fn counts(report: &VmReport) -> Markup {
    let figure = |class: &str, number: usize, word: &str| {
        html! { li class=(class) { strong { (number) } " " (word) } }
    };
    html! {
        ul .counts {
            (figure("passed", report.passed().count(), "passed"))
            (figure("failed", report.failed().count(), "failed"))
            (figure("skipped", report.skipped().count(), "skipped"))
            li { strong { (duration(report.run.seconds)) } " in all" }
        }
    }
}

fn failures(report: &VmReport) -> Markup {
    let failed = report
        .scenarios
        .iter()
        .enumerate()
        .filter_map(|(index, scenario)| match &scenario.outcome {
            Outcome::Failed(message) => Some((index, scenario, message)),
            _ => None,
        });
    html! {
        @for (index, scenario, message) in failed {
            div .failure {
                a href={ "#" (anchor(index)) } { (plain(&scenario.name)) }
                p { (plain(message)) }
            }
        }
    }
}

fn scenarios(report: &VmReport) -> Markup {
    html! {
        div .scroll {
            table .overview {
                caption { "Scenarios" }
                thead {
                    tr {
                        th scope="col" { "scenario" }
                        th scope="col" { "outcome" }
                        th scope="col" .number { "time" }
                        th scope="col" .number { "migrations" }
                        th scope="col" .number title="the longest of the scenario's migrations" { "downtime" }
                        th scope="col" .number { "on the wire" }
                        th scope="col" .number { "device state" }
                        th scope="col" .number title="pages sent after they had been sent before" { "sent again" }
                    }
                }
                tbody {
                    @for (index, scenario) in report.scenarios.iter().enumerate() {
                        (row(index, scenario))
                    }
                }
            }
        }
    }
}

fn row(index: usize, scenario: &ScenarioReport) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "#" (anchor(index)) } { (plain(&scenario.name)) } }
            td { (badge(&scenario.outcome)) }
            @if let Outcome::Skipped(reason) = &scenario.outcome {
                td .reason colspan="6" { (plain(reason)) }
            } @else {
                td .number { (duration(scenario.seconds)) }
                (migration_cells(scenario))
            }
        }
    }
}

fn migration_cells(scenario: &ScenarioReport) -> Markup {
    if scenario.migrations.is_empty() {
        return html! { @for _ in 0..5 { td .number { "–" } } };
    }
    html! {
        td .number { (scenario.migrations.len()) }
        td .number { (scenario.downtime().map_or("–".to_owned(), seconds)) }
        td .number { (bytes(scenario.wire_bytes())) }
        td .number { (bytes(scenario.device_bytes())) }
        td .number { (bytes(scenario.resent_bytes())) }
    }
}

fn run_info(run: &RunInfo) -> Markup {
    let memory = bytes(run.memory_bytes);
    let facts = [
        ("QEMU", &run.qemu),
        ("QEMU binary", &run.qemu_binary),
        ("kernel", &run.kernel),
        ("initrd", &run.initrd),
        ("guest memory", &memory),
        ("source's server", &run.source_server),
        ("destination's server", &run.dest_server),
        ("host", &run.host),
        ("date", &run.date),
        ("tool", &run.tool),
    ];
    html! {
        details .run open {
            summary { "What was run" }
            dl {
                @for (name, value) in facts {
                    @if !value.is_empty() {
                        div { dt { (name) } dd { (plain(value)) } }
                    }
                }
            }
        }
    }
}
