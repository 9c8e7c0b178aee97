//! The report for a terminal.

use std::fmt::{self, Write};

use super::units::{bytes, count, devices, seconds};
use crate::migrate::{Outcome, PassKind, PassStats};

/// Columns of the longest bar of the chart.
const CHART_WIDTH: usize = 40;

/// Lost pages that are told one by one.
const MAX_LOST: usize = 16;

/// The whole report.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut out, outcome);
    out
}

fn write_report(out: &mut String, outcome: &Outcome) -> fmt::Result {
    writeln!(
        out,
        "{} of guest memory, {}; {}, {}, {}",
        bytes(outcome.memory_size),
        devices(outcome.devices.len()),
        if outcome.dma_logging {
            "DMA logging"
        } else {
            "no DMA logging: every page is sent in every pass"
        },
        if outcome.pre_copy {
            "pre-copy"
        } else {
            "no pre-copy"
        },
        if outcome.p2p { "P2P" } else { "no P2P" },
    )?;
    writeln!(out)?;
    write_passes(out, &outcome.passes)?;
    writeln!(out)?;
    write_totals(out, outcome)?;
    write_judgement(out, outcome)
}

fn write_passes(out: &mut String, passes: &[PassStats]) -> fmt::Result {
    let most = passes.iter().map(|pass| pass.pages).max().unwrap_or(0).max(1);
    writeln!(
        out,
        "pass         pages   redundant  wire bytes       time  dirty rate"
    )?;
    for pass in passes {
        let name = match pass.kind {
            PassKind::Bulk => format!("{} all", pass.number),
            PassKind::Live => format!("{}", pass.number),
            PassKind::Final => format!("{} stop", pass.number),
        };
        let rate = match pass.number {
            0 => "-".to_owned(),
            _ => format!("{}/s", count(pass.dirty_rate as u64)),
        };
        let bar = (pass.pages as f64 / most as f64 * CHART_WIDTH as f64).ceil() as usize;
        writeln!(
            out,
            "{name:<7} {:>10}  {:>10}  {:>10} {:>10}  {rate:>10}  {}",
            count(pass.pages),
            count(pass.redundant_pages),
            bytes(pass.wire_bytes()),
            seconds(pass.seconds),
            "█".repeat(bar),
        )?;
    }
    Ok(())
}

fn write_totals(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let redundant = outcome.redundant_pages();
    let share = 100.0 * redundant as f64 / outcome.pages().max(1) as f64;
    writeln!(out, "downtime        {}", seconds(outcome.downtime))?;
    writeln!(
        out,
        "total           {} (both without the time the checks took)",
        seconds(outcome.seconds)
    )?;
    writeln!(
        out,
        "wire bytes      {}, of these {} device state",
        bytes(outcome.wire_bytes()),
        bytes(outcome.device_bytes())
    )?;
    writeln!(
        out,
        "redundant pages {} ({share:.1} % of those sent)",
        count(redundant)
    )
}

fn write_judgement(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let verdict = &outcome.verdict;
    if verdict.checked && verdict.passed() {
        writeln!(
            out,
            "oracle          every page arrived ({} seen written before their report, all reported)",
            count(verdict.cleared_suspects)
        )?;
    }
    if !verdict.checked {
        writeln!(out, "oracle          off")?;
    }
    for lost in verdict.lost.iter().take(MAX_LOST) {
        writeln!(out, "LOST            {lost}")?;
    }
    if verdict.lost.len() > MAX_LOST {
        writeln!(
            out,
            "LOST            and {} pages more",
            count((verdict.lost.len() - MAX_LOST) as u64)
        )?;
    }
    for replay in &outcome.replays {
        writeln!(
            out,
            "replay          {}: {} writes before, {} at the check, {} pages right",
            replay.device,
            count(replay.writes_at_switch_over),
            count(replay.writes_at_check),
            count(replay.pages_right)
        )?;
        for problem in &replay.problems {
            writeln!(out, "WRONG           {problem}")?;
        }
    }
    writeln!(out)?;
    writeln!(
        out,
        "{}",
        if outcome.passed() {
            "PASS: no page was lost"
        } else {
            "FAIL"
        }
    )
}
