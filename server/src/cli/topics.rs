//! `pagetrail help TOPIC`: short texts that teach.

use std::fmt::Write;

use anyhow::bail;
use clap::CommandFactory;

use super::args::Cli;

/// A text with its name and a line on what it is about.
struct Topic {
    name: &'static str,
    about: &'static str,
    text: &'static str,
}

const TOPICS: [Topic; 6] = [
    Topic {
        name: "qemu",
        about: "attach a device to a guest",
        text: include_str!("topics/qemu.txt"),
    },
    Topic {
        name: "migration",
        about: "what happens to a device when its VM moves",
        text: include_str!("topics/migration.txt"),
    },
    Topic {
        name: "serve",
        about: "the configuration file",
        text: include_str!("topics/serve.txt"),
    },
    Topic {
        name: "passthrough",
        about: "serve devices of the host's",
        text: include_str!("topics/passthrough.txt"),
    },
    Topic {
        name: "systemd",
        about: "run as a service",
        text: include_str!("topics/systemd.txt"),
    },
    Topic {
        name: "trouble",
        about: "messages, and what to do about them",
        text: include_str!("topics/trouble.txt"),
    },
];

/// A topic's text, a command's help, or the list of both.
///
/// # Errors
///
/// When there is neither a topic nor a command of that name.
pub(super) fn text(topic: Option<&str>) -> anyhow::Result<String> {
    let Some(name) = topic else { return Ok(list()) };
    if let Some(topic) = TOPICS.iter().find(|topic| topic.name == name) {
        return Ok(topic.text.to_owned());
    }
    let mut root = Cli::command();
    root.build();
    match root.find_subcommand_mut(name) {
        Some(command) => Ok(command.render_long_help().to_string()),
        None => bail!("there is no help on {name:?}\n\n{}", list()),
    }
}

fn list() -> String {
    let mut list = String::from("Topics (pagetrail help TOPIC):\n");
    for topic in &TOPICS {
        let _ = writeln!(list, "  {:12} {}", topic.name, topic.about);
    }
    list.push_str("\nCommands (pagetrail help COMMAND):\n");
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(list, "  {:12} {about}", command.get_name());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_and_command_of_the_list_has_a_text() {
        let list = list();
        let names = list
            .lines()
            .filter(|line| line.starts_with("  "))
            .filter_map(|line| line.split_whitespace().next());
        let mut count = 0;
        for name in names {
            assert!(
                text(Some(name)).expect(name).lines().count() > 3,
                "{name} says something"
            );
            count += 1;
        }
        assert!(count >= TOPICS.len() + 5, "{list}");
    }

    #[test]
    fn topics_fit_a_terminal() {
        for topic in &TOPICS {
            for line in topic.text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", topic.name);
            }
        }
    }

    #[test]
    fn the_example_configuration_of_the_serve_topic_is_the_one_that_is_shipped() {
        let shipped = include_str!("../../dist/pagetrail.toml");
        let shown: Vec<&str> = TOPICS[2]
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .collect();
        for line in shipped
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            assert!(shown.contains(&line), "{line}");
        }
    }

    #[test]
    fn an_unknown_topic_shows_the_list() {
        let error = text(Some("nothing")).expect_err("unknown").to_string();
        assert!(error.contains("migration"), "{error}");
    }
}
