//! Pages per pass as a small picture that needs nothing else.

use std::fmt::{self, Write};

use super::units::{bytes, count, devices, seconds};
use crate::migrate::{Outcome, PassKind};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 36.0;

/// A bar for each pass, on a logarithmic scale: the first pass would hide the others.
pub fn svg(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_svg(&mut out, outcome);
    out
}

fn write_svg(out: &mut String, outcome: &Outcome) -> fmt::Result {
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">"#
    )?;
    writeln!(
        out,
        r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##
    )?;
    writeln!(
        out,
        r##"<text x="{LEFT}" y="18" font-size="13" fill="#222222">Pages per pass: {} guest, {}, downtime {}, {} on the wire</text>"##,
        bytes(outcome.memory_size),
        devices(outcome.devices.len()),
        seconds(outcome.downtime),
        bytes(outcome.wire_bytes()),
    )?;
    let most = outcome
        .passes
        .iter()
        .map(|pass| pass.pages)
        .max()
        .unwrap_or(1)
        .max(1);
    let scale = (most as f64 + 1.0).ln();
    let step = (WIDTH - 2.0 * LEFT) / outcome.passes.len().max(1) as f64;
    for (index, pass) in outcome.passes.iter().enumerate() {
        let height = (pass.pages as f64 + 1.0).ln() / scale * (HEIGHT - TOP - BOTTOM);
        let x = LEFT + step * index as f64;
        let y = HEIGHT - BOTTOM - height;
        let (color, label) = match pass.kind {
            PassKind::Bulk => ("#9bb7d4", "all".to_owned()),
            PassKind::Live => ("#3572b0", pass.number.to_string()),
            PassKind::Final => ("#c0392b", "stop".to_owned()),
        };
        let middle = x + step / 2.0;
        let width = (step * 0.8).min(48.0);
        let left = middle - width / 2.0;
        writeln!(
            out,
            r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{color}"/>"#
        )?;
        writeln!(
            out,
            r##"<text x="{middle:.1}" y="{:.1}" text-anchor="middle" fill="#222222">{}</text>"##,
            y - 4.0,
            count(pass.pages)
        )?;
        writeln!(
            out,
            r##"<text x="{middle:.1}" y="{:.1}" text-anchor="middle" fill="#222222">{label}</text>"##,
            HEIGHT - BOTTOM + 14.0
        )?;
    }
    writeln!(
        out,
        r##"<text x="{LEFT}" y="{:.1}" fill="#666666">logarithmic; {}</text>"##,
        HEIGHT - 6.0,
        if outcome.passed() {
            "every page arrived"
        } else {
            "pages were lost"
        }
    )?;
    writeln!(out, "</svg>")
}
