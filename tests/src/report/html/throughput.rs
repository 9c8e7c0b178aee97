//! Bytes per second on the wire over time, before the bands of the phases.

use std::fmt::Write;

use maud::{Markup, html};

use super::chart::{Frame, Span, at, bands, figure, rulers, time_axis};
use crate::report::units::{bytes, count, seconds};
use crate::report::vm::{Migration, ScenarioReport};

const FRAME: Frame = Frame {
    width: 640.0,
    height: 260.0,
    left: 72.0,
    right: 20.0,
    top: 24.0,
    bottom: 28.0,
};

/// Shorter stretches of a migration are put together: QEMU keeps to a bandwidth in steps of a tenth of a second.
const SHORTEST: f64 = 0.1;

/// The same where that would leave no more than a few stretches.
const SHORTEST_OF_SHORT: f64 = 0.02;

/// Migrations shorter than this are short.
const SHORT: f64 = 1.0;

/// A stretch of time in which so much went over the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    began: f64,
    ended: f64,
    rate: f64,
}

pub(super) fn chart(scenario: &ScenarioReport, span: Span) -> Markup {
    let curves: Vec<Vec<Stretch>> = scenario.migrations.iter().map(stretches).collect();
    let most = curves
        .iter()
        .flatten()
        .map(|stretch| stretch.rate)
        .reduce(f64::max);
    let Some(most) = most else {
        return html! {};
    };
    figure(
        "Throughput",
        "Bytes per second on the wire, memory and device state together, with the scenario's phases behind.",
        &picture(scenario, span, &curves, most),
        &table(scenario),
    )
}

fn stretches(migration: &Migration) -> Vec<Stretch> {
    let shortest = match migration.ended - migration.began {
        time if time < SHORT => SHORTEST_OF_SHORT,
        _ => SHORTEST,
    };
    let mut stretches = Vec::new();
    let mut samples = migration.samples.iter();
    let Some(mut from) = samples.next() else {
        return stretches;
    };
    for sample in samples {
        let took = sample.at - from.at;
        if took >= shortest {
            stretches.push(Stretch {
                began: from.at,
                ended: sample.at,
                rate: sample.wire_bytes.saturating_sub(from.wire_bytes) as f64 / took,
            });
            from = sample;
        }
    }
    stretches
}

fn picture(scenario: &ScenarioReport, span: Span, curves: &[Vec<Stretch>], most: f64) -> Markup {
    let (unit, name) = unit(most);
    let scale = Span::new(0.0, most / unit * 1.05);
    let lines = scale
        .ticks(4)
        .into_iter()
        .map(|tick| (scale.part(tick), format!("{} {name}/s", short(tick))));
    let alternative = format!(
        "throughput over {}, at most {}/s",
        seconds(span.length()),
        bytes(most as u64)
    );
    html! {
        svg viewBox=(FRAME.view_box()) role="img" aria-label=(alternative) {
            (bands(&FRAME, span, &scenario.phases))
            (rulers(&FRAME, lines))
            @for curve in curves {
                path .area d=(outline(curve, span, scale, unit)) {}
                @for stretch in curve {
                    @let left = FRAME.x(span.part(stretch.began));
                    rect .hit x=(at(left)) y=(at(FRAME.top)) width=(at(FRAME.x(span.part(stretch.ended)) - left)) height=(at(FRAME.plot_height())) {
                        title { (bytes(stretch.rate as u64)) "/s from " (seconds(stretch.began)) " to " (seconds(stretch.ended)) }
                    }
                }
            }
            (time_axis(&FRAME, span))
        }
    }
}

/// The unit that makes the greatest rate a number of one to three digits.
fn unit(most: f64) -> (f64, &'static str) {
    match most {
        most if most >= 1.5 * f64::from(1_u32 << 30) => (f64::from(1_u32 << 30), "GiB"),
        most if most >= 1.5 * f64::from(1_u32 << 20) => (f64::from(1_u32 << 20), "MiB"),
        most if most >= 1.5 * f64::from(1_u32 << 10) => (f64::from(1_u32 << 10), "KiB"),
        _ => (1.0, "B"),
    }
}

fn short(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// Steps from the floor and back to it.
fn outline(curve: &[Stretch], span: Span, scale: Span, unit: f64) -> String {
    let mut path = String::new();
    let Some(first) = curve.first() else {
        return path;
    };
    // Writing to a string does not fail.
    let _ = write!(
        path,
        "M{:.1} {:.1}",
        FRAME.x(span.part(first.began)),
        FRAME.floor()
    );
    for stretch in curve {
        let y = FRAME.y(scale.part(stretch.rate / unit));
        let _ = write!(path, "V{y:.1}H{:.1}", FRAME.x(span.part(stretch.ended)));
    }
    let _ = write!(path, "V{:.1}", FRAME.floor());
    path
}

fn table(scenario: &ScenarioReport) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" .number { "time" }
                    th scope="col" .number { "on the wire" }
                    th scope="col" .number { "device state" }
                    th scope="col" .number { "left to send" }
                    th scope="col" .number { "QEMU's rate" }
                    th scope="col" .number { "pages dirtied per second" }
                }
            }
            tbody {
                @for sample in scenario.migrations.iter().flat_map(thinned) {
                    tr {
                        th scope="row" .number { (format!("{:.3} s", sample.at)) }
                        td .number { (bytes(sample.wire_bytes)) }
                        td .number { (bytes(sample.device_bytes)) }
                        td .number { (bytes(sample.remaining_bytes)) }
                        td .number { (bytes((sample.bits_per_second / 8.0) as u64)) "/s" }
                        td .number { (count(sample.dirty_pages_per_second as u64)) }
                    }
                }
            }
        }
    }
}

/// Rows of a migration's table, at most about a hundred.
fn thinned(migration: &Migration) -> impl Iterator<Item = &crate::report::vm::Sample> {
    let step = migration.samples.len().div_ceil(100).max(1);
    migration.samples.iter().step_by(step)
}

#[cfg(test)]
mod tests {
    use super::{Stretch, stretches};
    use crate::report::html::tests::migration;
    use crate::report::vm::Sample;

    #[test]
    fn a_rate_is_what_went_over_the_wire_between_two_looks() {
        let mut migration = migration();
        let sample = |at, wire_bytes| Sample {
            at,
            wire_bytes,
            ..Sample::default()
        };
        migration.samples = vec![
            sample(1.0, 0),
            sample(2.0, 1000),
            sample(2.01, 9000),
            sample(2.5, 1500),
        ];
        let rates = stretches(&migration);
        let stretch = |began, ended, rate| Stretch { began, ended, rate };
        assert_eq!(rates, [stretch(1.0, 2.0, 1000.0), stretch(2.0, 2.5, 1000.0)]);
    }
}
