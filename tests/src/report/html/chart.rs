//! What the charts share: a frame, scales with round ticks, and the bands of the phases.

use maud::{Markup, html};

use crate::report::plain::plain;
use crate::report::units::seconds;
use crate::report::vm::Phase;

/// Width of a letter of the charts' text, about.
const LETTER: f64 = 6.0;

/// The plot inside of a picture, in the picture's units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// Where a part of the plot's width is, 0 at the left.
    pub(super) fn x(&self, part: f64) -> f64 {
        self.left + part * self.plot_width()
    }

    /// Where a part of the plot's height is, 0 at the bottom.
    pub(super) fn y(&self, part: f64) -> f64 {
        self.floor() - part * self.plot_height()
    }

    pub(super) fn plot_width(&self) -> f64 {
        self.width - self.left - self.right
    }

    pub(super) fn plot_height(&self) -> f64 {
        self.height - self.top - self.bottom
    }

    pub(super) fn floor(&self) -> f64 {
        self.height - self.bottom
    }

    pub(super) fn view_box(&self) -> String {
        format!("0 0 {} {}", self.width, self.height)
    }
}

/// A stretch of time, or of anything else, that a chart shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: f64,
    pub(super) end: f64,
}

impl Span {
    /// From `begin` to `end`; never empty.
    pub(super) fn new(begin: f64, end: f64) -> Self {
        let end = if end > begin { end } else { begin + 1.0 };
        Self { begin, end }
    }

    pub(super) fn length(&self) -> f64 {
        self.end - self.begin
    }

    /// Which part of the span a value is at, 0 to 1; the nearer end for one outside.
    pub(super) fn part(&self, value: f64) -> f64 {
        ((value - self.begin) / self.length()).clamp(0.0, 1.0)
    }

    /// Round values in the span, about so many.
    pub(super) fn ticks(&self, about: u32) -> Vec<f64> {
        let rough = self.length() / f64::from(about.max(1));
        let power = 10_f64.powf(rough.log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0];
        let factor = factors.into_iter().find(|factor| factor * power >= rough);
        let step = factor.unwrap_or(10.0) * power;
        let first = (self.begin / step).ceil();
        let count = ((self.end / step).floor() - first + 1.0).clamp(0.0, 100.0) as u32;
        (0..count)
            .map(|index| (first + f64::from(index)) * step)
            .collect()
    }
}

/// A number as a coordinate.
pub(super) fn at(value: f64) -> String {
    format!("{value:.1}")
}

/// A chart with its title, what it shows, and its figures behind it.
pub(super) fn figure(title: &str, explanation: &str, picture: &Markup, table: &Markup) -> Markup {
    html! {
        figure {
            figcaption { h3 { (title) } p { (explanation) } }
            div .scroll tabindex="0" role="group" aria-label=(title) { (picture) }
            details {
                summary { "Figures" }
                div .scroll { (table) }
            }
        }
    }
}

/// Horizontal lines with their values.
pub(super) fn rulers(frame: &Frame, lines: impl IntoIterator<Item = (f64, String)>) -> Markup {
    html! {
        @for (part, label) in lines {
            line .ruler x1=(at(frame.left)) x2=(at(frame.width - frame.right)) y1=(at(frame.y(part))) y2=(at(frame.y(part))) {}
            text .tick x=(at(frame.left - 6.0)) y=(at(frame.y(part) + 4.0)) text-anchor="end" { (label) }
        }
    }
}

/// The time axis below a plot.
pub(super) fn time_axis(frame: &Frame, span: Span) -> Markup {
    html! {
        line .axis x1=(at(frame.left)) x2=(at(frame.width - frame.right)) y1=(at(frame.floor())) y2=(at(frame.floor())) {}
        @for tick in span.ticks(6) {
            @let x = frame.x(span.part(tick));
            line .axis x1=(at(x)) x2=(at(x)) y1=(at(frame.floor())) y2=(at(frame.floor() + 4.0)) {}
            text .tick x=(at(x)) y=(at(frame.floor() + 17.0)) text-anchor="middle" { (tick_seconds(tick, span)) }
        }
    }
}

/// Seconds at a tick, no more exact than the ticks are apart.
fn tick_seconds(tick: f64, span: Span) -> String {
    match span.length() {
        length if length >= 6.0 => format!("{tick:.0} s"),
        length if length >= 0.6 => format!("{tick:.1} s"),
        _ => format!("{tick:.2} s"),
    }
}

/// The phases as bands behind a plot, named above it where there is room.
pub(super) fn bands(frame: &Frame, span: Span, phases: &[Phase]) -> Markup {
    let seen = phases
        .iter()
        .enumerate()
        .filter(|(_, phase)| phase.ended > span.begin && phase.began < span.end);
    html! {
        @for (index, phase) in seen {
            @let left = frame.x(span.part(phase.began));
            @let width = frame.x(span.part(phase.ended)) - left;
            @let name = plain(&phase.name);
            g .band.odd[index % 2 == 1] {
                title { (name) ": " (seconds(phase.ended - phase.began)) }
                rect x=(at(left)) y=(at(frame.top)) width=(at(width)) height=(at(frame.plot_height())) {}
                line x1=(at(left)) x2=(at(left)) y1=(at(frame.top - 14.0)) y2=(at(frame.floor())) {}
                @if let Some(label) = fitting(&name, width - 8.0) {
                    text x=(at(left + 4.0)) y=(at(frame.top - 4.0)) { (label) }
                }
            }
        }
    }
}

/// As much of a name as has room; nothing where no more than a letter or two would.
pub(super) fn fitting(name: &str, width: f64) -> Option<String> {
    let room = (width / LETTER).max(0.0) as usize;
    if name.chars().count() <= room {
        return Some(name.to_owned());
    }
    (room >= 6).then(|| name.chars().take(room - 1).chain(['…']).collect())
}

#[cfg(test)]
mod tests {
    use super::{Span, fitting};

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(Span::new(0.0, 10.0).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Span::new(3.2, 5.1).ticks(2), [4.0, 5.0]);
        assert!(Span::new(0.0, 0.0).ticks(5).len() > 1, "an empty span is widened");
        let wild = [f64::NAN, f64::INFINITY, -1e300, 1e-300];
        for (begin, end) in wild.into_iter().flat_map(|begin| wild.map(|end| (begin, end))) {
            assert!(Span::new(begin, end).ticks(6).len() <= 100);
        }
    }

    #[test]
    fn a_name_is_cut_to_its_room() {
        assert_eq!(fitting("boot", 100.0).as_deref(), Some("boot"));
        assert_eq!(fitting("migrating", 50.0).as_deref(), Some("migrati…"));
        assert_eq!(fitting("migrating", 10.0), None);
        assert_eq!(fitting("migrating", -10.0), None);
    }
}
