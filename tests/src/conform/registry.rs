//! Every check, by topic, and the choice among them.

use super::check::Check;
use super::checks;

/// Every check, in the order in which they are tried: what later ones rely on first.
pub fn all() -> Vec<Check> {
    checks::all()
}

/// A choice by name.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Names that hold this text.
    Text(String),
    /// Names that match this pattern whole.
    Pattern(glob::Pattern),
}

impl std::str::FromStr for Filter {
    type Err = String;

    /// A text with `*`, `?` or `[` is a pattern.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Text(text.to_owned()));
        }
        glob::Pattern::new(text)
            .map(Self::Pattern)
            .map_err(|error| error.to_string())
    }
}

impl Filter {
    /// Whether the check of this name is chosen.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Text(text) => name.contains(text),
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }
}

/// The checks that one of `filters` chooses; all of them where there is none.
pub fn chosen(filters: &[Filter]) -> Vec<Check> {
    let mut checks = all();
    checks.retain(|check| filters.is_empty() || filters.iter().any(|filter| filter.matches(check.name())));
    checks
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Filter, all, chosen};

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_what_it_is_about() {
        let mut names = HashSet::new();
        for check in all() {
            let name = check.name();
            let parts: Vec<&str> = name.split('/').collect();
            assert_eq!(parts.len(), 2, "{name} is not topic/promise");
            let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
            assert!(
                parts.iter().all(|part| part
                    .split('-')
                    .all(|word| !word.is_empty() && word.chars().all(plain))),
                "{name}"
            );
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(check.about().ends_with('.'), "{name}: {}", check.about());
        }
    }

    #[test]
    fn a_filter_is_a_pattern_or_a_part_of_the_name() {
        let filter = |text: &str| text.parse::<Filter>().expect("a filter");
        assert!(filter("dma/*").matches("dma/a-map"));
        assert!(!filter("dma/*").matches("reset/keeps-dma/x"));
        assert!(filter("map").matches("dma/a-map"));
        assert!("[".parse::<Filter>().is_err());
        assert!(chosen(&[filter("no-such-check")]).is_empty());
        assert_eq!(chosen(&[]).len(), all().len());
    }
}
