//! Figures with units.

/// Bytes with a binary unit.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value} B"),
        _ => format!("{scaled:.1} {}", UNITS[unit]),
    }
}

/// Seconds with a fitting unit.
pub fn seconds(value: f64) -> String {
    match value {
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 1e-3 => format!("{:.1} ms", v * 1e3),
        v if v >= 1e-6 => format!("{:.1} us", v * 1e6),
        v => format!("{:.0} ns", v * 1e9),
    }
}

/// Seconds with a fitting unit, or minutes and seconds where it is long.
pub(super) fn duration(value: f64) -> String {
    if value < 120.0 {
        return seconds(value);
    }
    let whole = value.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// So many devices.
pub(super) fn devices(count: usize) -> String {
    match count {
        1 => "1 device".to_owned(),
        _ => format!("{count} devices"),
    }
}

/// A number with its thousands apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, seconds};

    #[test]
    fn figures_have_fitting_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn long_times_are_told_in_minutes() {
        assert_eq!(duration(59.5), "59.50 s");
        assert_eq!(duration(1375.4), "22 min 55 s");
        assert_eq!(duration(0.0), "0 ns");
    }
}
