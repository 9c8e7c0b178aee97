//! How long the guest stood still in each migration, against the limit.

use maud::{Markup, html};

use super::chart::{Frame, Span, at, figure};
use crate::report::plain::plain;
use crate::report::units::seconds;
use crate::report::vm::{Migration, ScenarioReport};

/// Height of a migration's row.
const ROW: f64 = 30.0;

/// Longest name before it is cut.
const NAME: usize = 24;

pub(super) fn chart(scenario: &ScenarioReport) -> Markup {
    let measured: Vec<(&Migration, f64)> = scenario
        .migrations
        .iter()
        .filter_map(|migration| Some((migration, migration.stood_still()?)))
        .collect();
    if measured.is_empty() {
        return html! {};
    }
    let wide = figure(
        "Downtime",
        "How long the guest stood still at the switch-over. The mark is the limit that QEMU was given: it stops the guest when \
         it expects to keep to it.",
        &picture(&measured),
        &table(&measured),
    );
    html! { div .wide { (wide) } }
}

fn picture(measured: &[(&Migration, f64)]) -> Markup {
    let frame = Frame {
        width: 1280.0,
        height: ROW * measured.len() as f64 + 30.0,
        left: 170.0,
        right: 90.0,
        top: 2.0,
        bottom: 28.0,
    };
    let limits = measured
        .iter()
        .filter_map(|(migration, _)| migration.downtime_limit);
    let longest = measured
        .iter()
        .map(|(_, downtime)| *downtime)
        .chain(limits)
        .fold(0.0, f64::max);
    let scale = Span::new(0.0, longest * 1000.0 * 1.05);
    html! {
        svg viewBox=(frame.view_box()) role="img" aria-label={ "the longest downtime was " (seconds(longest_downtime(measured))) } {
            @for tick in scale.ticks(5) {
                @let x = frame.x(scale.part(tick));
                line .ruler x1=(at(x)) x2=(at(x)) y1=(at(frame.top)) y2=(at(frame.floor())) {}
                text .tick x=(at(x)) y=(at(frame.floor() + 17.0)) text-anchor="middle" { (tick) " ms" }
            }
            @for (index, (migration, downtime)) in measured.iter().enumerate() {
                (row(&frame, scale, frame.top + ROW * index as f64, migration, *downtime))
            }
            line .axis x1=(at(frame.left)) x2=(at(frame.left)) y1=(at(frame.top)) y2=(at(frame.floor())) {}
        }
    }
}

fn longest_downtime(measured: &[(&Migration, f64)]) -> f64 {
    measured.iter().map(|(_, downtime)| *downtime).fold(0.0, f64::max)
}

fn is_over(migration: &Migration, downtime: f64) -> bool {
    migration.downtime_limit.is_some_and(|limit| downtime > limit)
}

fn row(frame: &Frame, scale: Span, top: f64, migration: &Migration, downtime: f64) -> Markup {
    let end = frame.x(scale.part(downtime * 1000.0));
    let class = if is_over(migration, downtime) {
        "over"
    } else {
        "live"
    };
    let middle = top + ROW / 2.0;
    html! {
        g class=(class) {
            title {
                (plain(&migration.name)) ": " (seconds(downtime))
                @if let Some(limit) = migration.downtime_limit { ", limit " (seconds(limit)) }
            }
            rect .hit x="0" y=(at(top)) width=(at(frame.width)) height=(at(ROW)) {}
            text .tick x=(at(frame.left - 8.0)) y=(at(middle + 4.0)) text-anchor="end" { (cut(&plain(&migration.name))) }
            rect .bar x=(at(frame.left)) y=(at(top + 7.0)) width=(at(end - frame.left)) height=(at(ROW - 14.0)) {}
            @if let Some(limit) = migration.downtime_limit {
                @let x = frame.x(scale.part(limit * 1000.0));
                line .limit x1=(at(x)) x2=(at(x)) y1=(at(top + 2.0)) y2=(at(top + ROW - 2.0)) {}
            }
            text .value x=(at(frame.width - frame.right + 8.0)) y=(at(middle + 4.0)) { (seconds(downtime)) }
        }
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

fn table(measured: &[(&Migration, f64)]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "migration" }
                    th scope="col" .number { "STOP to RESUME" }
                    th scope="col" .number { "QEMU's figure" }
                    th scope="col" .number { "limit" }
                }
            }
            tbody {
                @for (migration, downtime) in measured {
                    tr {
                        th scope="row" { (plain(&migration.name)) }
                        td .number {
                            (migration.standstill.map_or("–".to_owned(), seconds))
                            @if is_over(migration, *downtime) { " (over the limit)" }
                        }
                        td .number { (migration.downtime.map_or("–".to_owned(), seconds)) }
                        td .number {
                            (migration.downtime_limit.map_or("–".to_owned(), seconds))
                        }
                    }
                }
            }
        }
    }
}
