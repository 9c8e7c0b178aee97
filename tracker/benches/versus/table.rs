//! The table: for people, or as JSON.

use crate::measure::Comparison;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) result: Comparison,
    pub(crate) names: (&'static str, &'static str),
    pub(crate) requirement: Requirement,
}

/// What a ratio must be.
#[derive(Clone, Copy)]
pub(crate) enum Requirement {
    /// At least so many times as fast.
    AtLeast(f64),
    /// At most so many times as slow, with the first being the longer one.
    SlowerByLessThan(f64),
    /// The same but for noise.
    Same,
    /// Fewer bytes than this; the figure is bytes, not time.
    BytesBelow(f64),
    /// Nothing: for information.
    None,
}

impl Requirement {
    fn text(self) -> String {
        match self {
            Self::AtLeast(1.0) => "not slower".into(),
            Self::AtLeast(ratio) => format!(">= {ratio}x"),
            Self::SlowerByLessThan(factor) => format!("< {factor}x longer"),
            Self::Same => "the same".into(),
            Self::BytesBelow(bytes) => format!("< {} MiB", bytes / f64::from(1 << 20)),
            Self::None => String::new(),
        }
    }

    fn verdict(self, result: &Comparison) -> &'static str {
        let met = match self {
            // One per cent is below what can be told apart here.
            Self::AtLeast(ratio) => result.ratio >= ratio * 0.99,
            Self::SlowerByLessThan(factor) => 1.0 / result.ratio < factor,
            Self::Same => (0.9..=1.1).contains(&result.ratio),
            Self::BytesBelow(bytes) => result.ours < bytes,
            Self::None => return "",
        };
        if met { "pass" } else { "FALLS SHORT" }
    }
}

/// Prints the table for people.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "{:<66} {:>12} {:>12} {:>9} {:>17} {:>13}",
        "4 KiB pages; medians of interleaved pairs", "pagetrail", "other", "ratio", "quartiles", "must be"
    );
    for row in rows {
        let Comparison {
            ours,
            theirs,
            ratio,
            low,
            high,
        } = row.result;
        if let Requirement::BytesBelow(_) = row.requirement {
            let (text, verdict) = (row.requirement.text(), row.requirement.verdict(&row.result));
            println!(
                "{:<66} {:>8.0} KiB {:>40} {text:>13}  {verdict}",
                row.name,
                ours / 1024.0,
                ""
            );
            continue;
        }
        println!(
            "{:<66} {:>12} {:>12} {:>8.2}x {:>7.2} .. {:<7.2} {:>13}  {}",
            row.name,
            nanoseconds(ours),
            nanoseconds(theirs),
            ratio,
            low,
            high,
            row.requirement.text(),
            row.requirement.verdict(&row.result),
        );
    }
}

/// Prints the table as JSON, times in nanoseconds.
pub(crate) fn print_json(rows: &[Row]) {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let Comparison {
                ours,
                theirs,
                ratio,
                low,
                high,
            } = row.result;
            serde_json::json!({
                "name": row.name, "ours_is": row.names.0, "theirs_is": row.names.1,
                "ours": ours, "theirs": theirs, "ratio": ratio, "quartiles": [low, high],
                "must_be": row.requirement.text(), "verdict": row.requirement.verdict(&row.result),
            })
        })
        .collect();
    println!("{:#}", serde_json::Value::Array(rows));
}

fn nanoseconds(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{v:.2} ns"),
        v if v < 1e6 => format!("{:.2} us", v / 1e3),
        v => format!("{:.2} ms", v / 1e6),
    }
}

/// A row of ours against `AtomicBitmap`.
pub(crate) fn versus(name: &str, result: Comparison, requirement: Requirement) -> Row {
    Row {
        name: name.to_owned(),
        result,
        names: ("pagetrail", "AtomicBitmap"),
        requirement,
    }
}
