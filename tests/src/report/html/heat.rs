//! Which memory changed when: address by time, the colour saying how many pages.

use std::fmt::Write;
use std::ops::Range;

use maud::{Markup, html};

use super::chart::{Frame, Span, at, bands, figure, time_axis};
use crate::heat::{HeatColumn, HeatMap};
use crate::report::units::{bytes, count};
use crate::report::vm::ScenarioReport;

const FRAME: Frame = Frame {
    width: 1280.0,
    height: 340.0,
    left: 84.0,
    right: 20.0,
    top: 24.0,
    bottom: 28.0,
};

/// Shades. The lightest is a page or two, the darkest the most pages of any cell; the steps are equal ratios.
const SHADES: usize = 7;

pub(super) fn chart(scenario: &ScenarioReport, span: Span) -> Markup {
    let Some(map) = scenario.heat_map.as_ref().filter(|map| !map.columns.is_empty()) else {
        return html! {};
    };
    let wide = figure(
        "Memory that changed",
        "Pages of the guest's memory that were seen to have changed, by address and time.",
        &html! { (picture(scenario, map, span)) (legend(map)) },
        &table(map),
    );
    html! { div .wide { (wide) } }
}

fn picture(scenario: &ScenarioReport, map: &HeatMap, span: Span) -> Markup {
    let alternative = format!(
        "{} changes of pages in {} of memory",
        count(map.changes()),
        bytes(map.memory_bytes)
    );
    html! {
        svg .heat viewBox=(FRAME.view_box()) role="img" aria-label=(alternative) {
            rect .ground x=(at(FRAME.left)) y=(at(FRAME.top)) width=(at(FRAME.plot_width())) height=(at(FRAME.plot_height())) {}
            @for (shade, path) in shades(map, span).iter().enumerate() {
                @if !path.is_empty() {
                    path class={ "shade" (shade + 1) } d=(path) {}
                }
            }
            (bands(&FRAME, span, &scenario.phases))
            @for quarter in 0..=4_u32 {
                @let part = f64::from(quarter) / 4.0;
                text .tick x=(at(FRAME.left - 6.0)) y=(at(FRAME.y(part) + 4.0)) text-anchor="end" {
                    (bytes(map.memory_bytes / 4 * u64::from(quarter)))
                }
            }
            (time_axis(&FRAME, span))
        }
    }
}

/// The shade of a cell, from 0; `None` where nothing changed.
fn shade(pages: u32, hottest: u32) -> Option<usize> {
    if pages == 0 {
        return None;
    }
    let part = f64::from(pages).ln_1p() / f64::from(hottest).ln_1p();
    Some(((part * SHADES as f64).ceil() as usize).clamp(1, SHADES) - 1)
}

/// A path for each shade: a rectangle for each run of cells, along the time, that have it.
fn shades(map: &HeatMap, span: Span) -> [String; SHADES] {
    let mut paths = [const { String::new() }; SHADES];
    let hottest = map.hottest();
    for row in 0..rows(map) {
        let shades: Vec<Option<usize>> = cells(map, row).map(|pages| shade(pages, hottest)).collect();
        let mut begin = 0;
        for run in shades.chunk_by(|a, b| a == b) {
            let end = begin + run.len();
            if let Some(shade) = run[0] {
                let time = time_before(map, begin)..time_before(map, end);
                rectangle(&mut paths[shade], map, span, row, time);
            }
            begin = end;
        }
    }
    paths
}

fn rows(map: &HeatMap) -> usize {
    map.columns
        .iter()
        .map(|column| column.pages.len())
        .max()
        .unwrap_or(0)
}

/// The pages of a row, column by column.
fn cells(map: &HeatMap, row: usize) -> impl Iterator<Item = u32> {
    let cell = move |column: &HeatColumn| column.pages.get(row).copied().unwrap_or(0);
    map.columns.iter().map(cell)
}

/// When the columns before that of number `columns` have ended.
fn time_before(map: &HeatMap, columns: usize) -> f64 {
    match columns {
        0 => map.began,
        _ => map.columns[columns - 1].ended,
    }
}

fn rectangle(path: &mut String, map: &HeatMap, span: Span, row: usize, time: Range<f64>) {
    let memory = Span::new(0.0, map.memory_bytes as f64);
    let address = |row: usize| FRAME.y(memory.part(map.row_bytes as f64 * row as f64));
    let (left, right) = (FRAME.x(span.part(time.start)), FRAME.x(span.part(time.end)));
    let (bottom, top) = (address(row), address(row + 1));
    if right > left && bottom > top {
        // Writing to a string does not fail.
        let _ = write!(path, "M{left:.1} {top:.1}H{right:.1}V{bottom:.1}H{left:.1}z");
    }
}

fn legend(map: &HeatMap) -> Markup {
    let hottest = map.hottest();
    html! {
        p .legend {
            span { "unchanged" }
            svg viewBox={ "0 0 " (14 * (SHADES + 1)) " 14" } aria-hidden="true" {
                rect .ground x="0" y="0" width="13" height="14" {}
                @for shade in 0..SHADES {
                    rect class={ "shade" (shade + 1) } x=(14 * (shade + 1)) y="0" width="13" height="14" {}
                }
            }
            span { (count(u64::from(hottest))) " pages" }
            span .note {
                "A row is " (bytes(map.row_bytes)) " of memory; shades are steps of equal ratio."
            }
        }
    }
}

/// The rows with the most changes: the whole map would be tens of thousands of figures.
fn table(map: &HeatMap) -> Markup {
    let total = |row| cells(map, row).map(u64::from).sum::<u64>();
    let mut totals: Vec<(usize, u64)> = (0..rows(map)).map(|row| (row, total(row))).collect();
    totals.retain(|(_, total)| *total > 0);
    totals.sort_by_key(|(_, total)| std::cmp::Reverse(*total));
    html! {
        table {
            caption { "Memory that changed most" }
            thead {
                tr {
                    th scope="col" { "address" }
                    th scope="col" .number { "changes of pages" }
                }
            }
            tbody {
                @for (row, total) in totals.into_iter().take(32) {
                    @let begin = map.row_bytes * row as u64;
                    tr {
                        th scope="row" { (format!("{begin:#x} + {}", bytes(map.row_bytes))) }
                        td .number { (count(total)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SHADES, shade};

    #[test]
    fn shades_go_from_a_page_to_the_most() {
        assert_eq!(shade(0, 100), None);
        assert_eq!(shade(100, 100), Some(SHADES - 1));
        assert_eq!(shade(1, 1), Some(SHADES - 1));
        let shades: Vec<Option<usize>> = (1..=1000).map(|pages| shade(pages, 1000)).collect();
        assert!(shades.is_sorted());
        assert_eq!(shades[0], Some(0));
    }
}
