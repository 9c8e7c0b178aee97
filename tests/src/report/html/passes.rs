//! Pages per pass: a bar for each, on a logarithmic scale, since the first would hide the others.

use maud::{Markup, html};

use super::chart::{Frame, at, figure, fitting, rulers};
use crate::migrate::PassKind;
use crate::report::plain::plain;
use crate::report::units::{bytes, count, seconds};
use crate::report::vm::{Migration, Pass, ScenarioReport};

const FRAME: Frame = Frame {
    width: 640.0,
    height: 260.0,
    left: 56.0,
    right: 8.0,
    top: 20.0,
    bottom: 40.0,
};

/// Bars up to which each bears its value.
const LABELLED_BARS: usize = 12;

/// Width of the name of a pass.
const NAME: f64 = 28.0;

/// Widest bar.
const BAR: f64 = 40.0;

pub(super) fn chart(scenario: &ScenarioReport) -> Markup {
    let passes: usize = scenario
        .migrations
        .iter()
        .map(|migration| migration.passes.len())
        .sum();
    if passes == 0 {
        return html! {};
    }
    figure(
        "Pages per pass",
        "Pages sent in each pass over the guest's memory. The last is sent while the guest stands still. Logarithmic.",
        &picture(&scenario.migrations, passes),
        &table(&scenario.migrations),
    )
}

/// The scale: from one page to the next power of ten above the most.
struct Pages {
    decades: f64,
}

impl Pages {
    fn of(migrations: &[Migration]) -> Self {
        let pages = migrations
            .iter()
            .flat_map(|migration| &migration.passes)
            .map(|pass| pass.sent_pages);
        let most = pages.max().unwrap_or(1).max(10) as f64;
        Self {
            decades: most.log10().ceil(),
        }
    }

    /// No page is nothing, one page can be seen.
    fn part(&self, pages: u64) -> f64 {
        match pages {
            0 => 0.0,
            _ => ((pages as f64).log10() / self.decades).max(0.02),
        }
    }

    fn lines(&self) -> impl Iterator<Item = (f64, String)> {
        let decades = self.decades;
        (0..=decades as u32).map(move |power| (f64::from(power) / decades, count(10_u64.pow(power))))
    }
}

/// Where a migration's bars stand.
struct Group<'a> {
    migration: &'a Migration,
    begin: f64,
    /// Width of a bar's place.
    step: f64,
}

impl Group<'_> {
    fn end(&self) -> f64 {
        self.place(self.migration.passes.len())
    }

    fn place(&self, index: usize) -> f64 {
        self.begin + self.step * index as f64
    }

    fn middle(&self, index: usize) -> f64 {
        self.place(index) + self.step / 2.0
    }
}

/// The migrations side by side, with a gap of half a bar between two.
fn groups(migrations: &[Migration], passes: usize) -> Vec<Group<'_>> {
    let gaps = migrations.len() as f64 - 1.0;
    let step = FRAME.plot_width() / (passes as f64 + gaps * 0.5);
    let mut begin = FRAME.left;
    let group = |migration| {
        let group = Group {
            migration,
            begin,
            step,
        };
        begin = group.end() + step * 0.5;
        group
    };
    migrations.iter().map(group).collect()
}

fn picture(migrations: &[Migration], passes: usize) -> Markup {
    let scale = Pages::of(migrations);
    let groups = groups(migrations, passes);
    // As many names below the bars as there is room for.
    let every = groups
        .first()
        .map_or(1, |group| (NAME / group.step).ceil() as usize);
    html! {
        svg viewBox=(FRAME.view_box()) role="img" aria-label=(alternative(migrations, passes)) {
            (rulers(&FRAME, scale.lines()))
            @for group in groups {
                @for (index, pass) in group.migration.passes.iter().enumerate() {
                    (bar(pass, group.place(index), group.step, &scale))
                    @if passes <= LABELLED_BARS {
                        (value(pass, group.middle(index), &scale))
                    }
                    @if index.is_multiple_of(every) {
                        (tick(pass, group.middle(index)))
                    }
                }
                @if migrations.len() > 1 {
                    (group_name(&group))
                }
            }
            line .axis x1=(at(FRAME.left)) x2=(at(FRAME.width - FRAME.right)) y1=(at(FRAME.floor())) y2=(at(FRAME.floor())) {}
        }
    }
}

fn group_name(group: &Group<'_>) -> Markup {
    let middle = f64::midpoint(group.begin, group.end());
    html! {
        @if let Some(name) = fitting(&plain(&group.migration.name), group.end() - group.begin) {
            text .tick x=(at(middle)) y=(at(FRAME.floor() + 34.0)) text-anchor="middle" { (name) }
        }
    }
}

fn bar(pass: &Pass, x: f64, step: f64, scale: &Pages) -> Markup {
    let middle = x + step / 2.0;
    let width = (step * 0.8).min(BAR);
    let top = FRAME.y(scale.part(pass.sent_pages));
    html! {
        g .{ (class(pass.kind)) } {
            title {
                (name(pass)) ": " (count(pass.sent_pages)) " pages sent, " (count(pass.zero_pages)) " of them zero, "
                (bytes(pass.wire_bytes)) " in " (seconds(pass.ended - pass.began))
            }
            // All of the column is there for the pointer.
            rect .hit x=(at(x)) y=(at(FRAME.top)) width=(at(step)) height=(at(FRAME.plot_height())) {}
            rect .bar x=(at(middle - width / 2.0)) y=(at(top)) width=(at(width)) height=(at(FRAME.floor() - top)) {}
        }
    }
}

fn value(pass: &Pass, middle: f64, scale: &Pages) -> Markup {
    let top = FRAME.y(scale.part(pass.sent_pages));
    html! {
        text .value x=(at(middle)) y=(at(top - 4.0)) text-anchor="middle" { (count(pass.sent_pages)) }
    }
}

fn tick(pass: &Pass, middle: f64) -> Markup {
    html! {
        text .tick x=(at(middle)) y=(at(FRAME.floor() + 16.0)) text-anchor="middle" { (short_name(pass)) }
    }
}

fn class(kind: PassKind) -> &'static str {
    match kind {
        PassKind::Bulk => "bulk",
        PassKind::Live => "live",
        PassKind::Final => "final",
    }
}

fn name(pass: &Pass) -> String {
    match pass.kind {
        PassKind::Bulk => "all memory".to_owned(),
        PassKind::Live if pass.number < pass.last_number => {
            format!("passes {} to {}", pass.number, pass.last_number)
        }
        PassKind::Live => format!("pass {}", pass.number),
        PassKind::Final => "with the guest stopped".to_owned(),
    }
}

fn short_name(pass: &Pass) -> String {
    match pass.kind {
        PassKind::Bulk => "all".to_owned(),
        PassKind::Live if pass.number < pass.last_number => format!("{}–{}", pass.number, pass.last_number),
        PassKind::Live => pass.number.to_string(),
        PassKind::Final => "stop".to_owned(),
    }
}

fn alternative(migrations: &[Migration], passes: usize) -> String {
    let sent = |pass: Option<&Pass>| pass.map_or(0, |pass| pass.sent_pages);
    let first = sent(migrations.iter().flat_map(|migration| &migration.passes).next());
    let last = sent(
        migrations
            .iter()
            .flat_map(|migration| &migration.passes)
            .next_back(),
    );
    format!(
        "{passes} passes; the first sent {} pages, the last {}",
        count(first),
        count(last)
    )
}

fn table(migrations: &[Migration]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "migration" }
                    th scope="col" { "pass" }
                    th scope="col" .number { "dirty at its beginning" }
                    th scope="col" .number { "pages sent" }
                    th scope="col" .number { "zero" }
                    th scope="col" .number { "on the wire" }
                    th scope="col" .number { "took" }
                }
            }
            tbody {
                @for migration in migrations {
                    @for pass in &migration.passes {
                        tr {
                            td { (plain(&migration.name)) }
                            th scope="row" { (name(pass)) }
                            td .number { (count(pass.dirty_pages)) }
                            td .number { (count(pass.sent_pages)) }
                            td .number { (count(pass.zero_pages)) }
                            td .number { (bytes(pass.wire_bytes)) }
                            td .number { (seconds(pass.ended - pass.began)) }
                        }
                    }
                }
            }
        }
    }
}
