//! What two devices differ in.

use std::collections::BTreeSet;
use std::fmt;

use crate::device::Identity;

/// How many differences a message names. A stream cannot fill the log with what it made up.
const MAX_NAMED: usize = 8;

/// The differences between the device here and the one a stream comes from, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences(Vec<String>);

impl Differences {
    /// `None` when the two are equal.
    pub(super) fn between(here: &Identity, stream: &Identity) -> Option<Self> {
        if here == stream {
            return None;
        }
        let mut found = Vec::new();
        if here.kind != stream.kind {
            found.push(format!(
                "kind: {:?} here, {:?} in the stream",
                here.kind, stream.kind
            ));
        }
        if here.version != stream.version {
            found.push(format!(
                "version: {} here, {} in the stream",
                here.version, stream.version
            ));
        }
        found.extend(config_differences(here, stream));
        if found.is_empty() {
            found.push("the order of the configuration".to_owned());
        }
        Some(Self(found))
    }
}

fn config_differences(here: &Identity, stream: &Identity) -> Vec<String> {
    let names: BTreeSet<&str> = here
        .config
        .iter()
        .chain(&stream.config)
        .map(|(name, _)| name.as_str())
        .collect();
    let differing = names
        .into_iter()
        .filter(|name| values(here, name) != values(stream, name));
    differing
        .map(|name| {
            let (ours, theirs) = (in_words(&values(here, name)), in_words(&values(stream, name)));
            format!("{}: {ours} here, {theirs} in the stream", name.escape_debug())
        })
        .collect()
}

fn values(identity: &Identity, name: &str) -> Vec<u64> {
    identity
        .config
        .iter()
        .filter(|(candidate, _)| candidate == name)
        .map(|(_, value)| *value)
        .collect()
}

fn in_words(values: &[u64]) -> String {
    match values {
        [] => "absent".to_owned(),
        [value] => value.to_string(),
        several => format!("{several:?}"),
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.0.len().min(MAX_NAMED);
        f.write_str(&self.0[..named].join("; "))?;
        match self.0.len() - named {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(kind: &str, version: u32, config: &[(&str, u64)]) -> Identity {
        let config = config
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        Identity {
            kind: kind.to_owned(),
            version,
            config,
        }
    }

    fn words(here: &Identity, stream: &Identity) -> String {
        Differences::between(here, stream)
            .expect("they differ")
            .to_string()
    }

    #[test]
    fn equal_devices_do_not_differ() {
        let one = identity("dma", 1, &[("workers", 2)]);
        assert_eq!(Differences::between(&one, &one), None);
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let here = identity("dma", 1, &[("workers", 2), ("queues", 1)]);
        let more = identity("dma", 1, &[("workers", 4), ("queues", 1)]);
        assert_eq!(words(&here, &more), "workers: 2 here, 4 in the stream");
        let other = identity("nvme", 3, &[("queues", 1)]);
        let expected = r#"kind: "dma" here, "nvme" in the stream; version: 1 here, 3 in the stream; workers: 2 here, absent in the stream"#;
        assert_eq!(words(&here, &other), expected);
    }

    #[test]
    fn any_difference_is_found() {
        let here = identity("dma", 1, &[("a", 1), ("b", 2)]);
        assert_eq!(
            words(&here, &identity("dma", 1, &[("b", 2), ("a", 1)])),
            "the order of the configuration"
        );
        let doubled = identity("dma", 1, &[("a", 1), ("a", 1), ("b", 2)]);
        assert_eq!(words(&here, &doubled), "a: 1 here, [1, 1] in the stream");
    }

    #[test]
    fn a_hostile_stream_cannot_write_control_characters_or_volumes_into_the_log() {
        let here = identity("dma", 1, &[]);
        let names: Vec<String> = (0..1000).map(|number| format!("\u{1b}[2J{number}\n")).collect();
        let config: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let words = words(&here, &identity("dma", 1, &config));
        assert!(!words.contains(char::is_control), "{words}");
        assert!(words.ends_with("and 992 more"), "{words}");
    }
}
