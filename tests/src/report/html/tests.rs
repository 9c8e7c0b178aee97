//! What the page promises: it needs nothing else, and nobody else's text becomes a part of it.

use super::{SCRIPT, STYLE, html};
use crate::heat::{HeatColumn, HeatMap};
use crate::migrate::PassKind;
use crate::report::vm::{Ending, Migration, Outcome, Pass, Phase, RunInfo, Sample, ScenarioReport, VmReport};

/// Breaks out of text, attributes, styles, scripts and comments wherever one is not escaped.
const HOSTILE: &str = "</title></style></script>\"'><script src=http://x.example/>&--><svg onload=a()><hostile\u{202e}\u{1b}[31m\u{0}";

/// A migration with everything in it.
pub(in crate::report) fn migration() -> Migration {
    let pass = |number: u64, kind, sent_pages| Pass {
        number,
        last_number: number,
        kind,
        began: 1.0 + number as f64,
        ended: 2.0 + number as f64,
        dirty_pages: sent_pages,
        sent_pages,
        zero_pages: sent_pages / 2,
        wire_bytes: sent_pages * 4096,
    };
    Migration {
        name: HOSTILE.to_owned(),
        began: 1.0,
        ended: 4.0,
        ending: Ending::Failed(HOSTILE.to_owned()),
        downtime: Some(0.4),
        standstill: None,
        downtime_limit: Some(0.3),
        total: Some(3.0),
        memory_bytes: 1 << 28,
        wire_bytes: 1 << 28,
        device_bytes: 5000,
        resent_bytes: 1 << 20,
        passes: vec![
            pass(0, PassKind::Bulk, 65536),
            pass(1, PassKind::Live, 900),
            pass(2, PassKind::Final, 0),
        ],
        samples: vec![
            Sample {
                at: 1.0,
                ..Sample::default()
            },
            Sample {
                at: 2.0,
                wire_bytes: 1 << 27,
                ..Sample::default()
            },
            Sample {
                at: 4.0,
                wire_bytes: 1 << 28,
                ..Sample::default()
            },
        ],
    }
}

fn scenario(outcome: Outcome) -> ScenarioReport {
    ScenarioReport {
        name: HOSTILE.to_owned(),
        description: HOSTILE.to_owned(),
        outcome,
        seconds: 5.0,
        phases: vec![Phase {
            name: HOSTILE.to_owned(),
            began: 0.0,
            ended: 5.0,
        }],
        migrations: vec![migration()],
        heat_map: Some(HeatMap {
            memory_bytes: 1 << 20,
            row_bytes: 8192,
            began: 1.0,
            columns: vec![HeatColumn {
                ended: 2.0,
                pages: vec![0, 1, 2],
            }],
        }),
        log: HOSTILE.to_owned(),
    }
}

fn report() -> VmReport {
    let hostile = || HOSTILE.to_owned();
    VmReport {
        run: RunInfo {
            tool: hostile(),
            qemu: hostile(),
            qemu_binary: hostile(),
            kernel: hostile(),
            initrd: hostile(),
            source_server: hostile(),
            dest_server: hostile(),
            memory_bytes: 1 << 28,
            host: hostile(),
            date: hostile(),
            seconds: 9.0,
        },
        scenarios: vec![
            scenario(Outcome::Passed),
            scenario(Outcome::Failed(HOSTILE.to_owned())),
            scenario(Outcome::Skipped(HOSTILE.to_owned())),
        ],
    }
}

/// The page without the parts of this program.
fn content(page: &str) -> String {
    page.replacen(STYLE, "", 1).replacen(SCRIPT, "", 1)
}

#[test]
fn nothing_that_others_wrote_becomes_markup() {
    let content = content(&html(&report()));
    assert!(
        content.contains("&lt;script src=http://x.example/&gt;"),
        "the text is shown"
    );
    assert!(!content.contains("<script src"), "and is no script");
    assert_eq!(content.matches("<script").count(), 1);
    assert_eq!(content.matches("<style").count(), 1);
    assert!(
        !content.contains("<svg onload") && !content.contains("<hostile"),
        "no element of others"
    );
    assert!(!content.contains("\"'>"), "no attribute is left");
    assert!(
        !content.contains(['\u{1b}', '\u{202e}', '\u{0}']),
        "nothing steers the reader's screen"
    );
}

/// What makes a browser fetch something, or run it.
fn reaches_out(page: &str) -> bool {
    let attributes = [
        " src=",
        " srcset=",
        " action=",
        " data=",
        " poster=",
        " background=",
        " onload=",
        " onclick=",
    ];
    let elsewhere = page.split(" href=\"").skip(1).any(|rest| !rest.starts_with('#'));
    let elements = [
        "<link", "<iframe", "<object", "<embed", "<base", "<img", "<image", "<use", "<form",
    ];
    let style = ["@import", "url("];
    let script = ["fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval("];
    elsewhere
        || attributes
            .iter()
            .chain(&elements)
            .chain(&style)
            .chain(&script)
            .any(|needle| page.contains(needle))
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let mut report = report();
    // Text may say what it likes; this is about the page's own elements.
    let plain = serde_json::to_string(&report).expect("it is JSON");
    let hostile = serde_json::to_string(HOSTILE).expect("it is JSON");
    let plain = plain.replace(hostile.trim_matches('"'), "name");
    report = serde_json::from_str(&plain).expect("it is a report");
    let page = html(&report);
    assert!(!reaches_out(&page));
    assert!(page.contains("default-src 'none'"), "and the browser is told so");
}

#[test]
fn what_reaches_out_is_found() {
    for page in [
        "<img src=\"https://x.example/a.png\">",
        "<a href=\"https://x.example\">",
        "<style>@import 'x'</style>",
        "<link rel=stylesheet>",
        "<svg onload=\"a()\">",
    ] {
        assert!(reaches_out(page), "{page}");
    }
    assert!(!reaches_out("<a href=\"#scenario-1\">"));
}

#[test]
fn every_chart_has_its_figures_behind_it() {
    let page = html(&report());
    let charts = page.matches("<figure").count();
    assert_eq!(
        charts,
        3 * 4,
        "passes, throughput, memory and downtime of three scenarios"
    );
    assert_eq!(page.matches("<summary>Figures</summary>").count(), charts);
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), charts);
}

#[test]
fn the_log_of_a_failure_is_open_and_others_are_not() {
    let page = html(&report());
    assert_eq!(page.matches("<details open><summary>Log</summary>").count(), 1);
    assert_eq!(page.matches("<details><summary>Log</summary>").count(), 2);
}

#[test]
fn a_report_without_anything_is_a_page() {
    let nothing = VmReport {
        run: RunInfo::default(),
        scenarios: Vec::new(),
    };
    assert!(html(&nothing).contains("Nothing was checked"));
    let mut empty = scenario(Outcome::Passed);
    empty.migrations.clear();
    empty.phases.clear();
    empty.heat_map = None;
    let page = html(&VmReport {
        run: RunInfo::default(),
        scenarios: vec![empty],
    });
    assert!(page.contains("The scenario passed") && !page.contains("<figure"));
}

#[test]
fn a_report_comes_back_from_json_as_it_was() {
    let report = report();
    let json = serde_json::to_string(&report).expect("it is JSON");
    assert_eq!(
        serde_json::from_str::<VmReport>(&json).expect("it is a report"),
        report
    );
}
