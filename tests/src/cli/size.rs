//! Sizes on the command line.

/// Parses bytes with an optional binary unit: `4096`, `64K`, `512M`, `1GiB`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` does not start with a number"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(format!("`{unit}` is no unit; use K, M, G or T (binary)")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// Parses a page size: a power of two from 512 bytes to 1 GiB.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse_page_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size.is_power_of_two() && (512..=1 << 30).contains(&size) {
        return Ok(size);
    }
    Err("a page size is a power of two from 512 to 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{parse_page_size, parse_size};

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("3MiB"), Ok(3 << 20));
        assert!(parse_size("3X").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("99999999T").is_err());
    }

    #[test]
    fn page_sizes_are_powers_of_two() {
        assert_eq!(parse_page_size("64K"), Ok(65536));
        assert!(parse_page_size("3K").is_err());
        assert!(parse_page_size("256").is_err());
    }
}
