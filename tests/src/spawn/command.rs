//! The command line of a device server, given once and run as often as needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// What stands for the path of the socket of a server with one device.
const SOCKET: &str = "{socket}";

/// What stands for the path of a socket; a word that has it is there once for each device of the process.
const SOCKETS: &str = "{sockets}";

/// A command line with a place for sockets. It is taken apart by the shell's rules of quoting, and run without a shell: the
/// process that is started is the server, and killing it kills the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCommand {
    text: String,
    words: Vec<String>,
}

impl ServerCommand {
    /// The command for a process with a device at each of `sockets`; `None` when it serves one device only.
    pub fn at(&self, sockets: &[PathBuf]) -> Option<Command> {
        let [first, ..] = sockets else {
            return None;
        };
        if sockets.len() > 1 && !self.serves_several() {
            return None;
        }
        let (program, arguments) = self.words.split_first()?;
        let mut command = Command::new(program);
        for word in arguments {
            if word.contains(SOCKETS) {
                command.args(sockets.iter().map(|socket| filled(word, SOCKETS, socket)));
            } else {
                command.arg(filled(word, SOCKET, first));
            }
        }
        Some(command)
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn serves_several(&self) -> bool {
        self.has(SOCKETS)
    }

    fn has(&self, place: &str) -> bool {
        self.words.iter().skip(1).any(|word| word.contains(place))
    }
}

fn filled(word: &str, place: &str, socket: &Path) -> String {
    word.replace(place, &socket.display().to_string())
}

impl FromStr for ServerCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = shlex::split(text).ok_or_else(|| "a quote is not closed".to_owned())?;
        if words.is_empty() {
            return Err("it names no program".to_owned());
        }
        let command = Self {
            text: text.to_owned(),
            words,
        };
        match (command.has(SOCKET), command.has(SOCKETS)) {
            (false, false) => Err(format!(
                "it has no {SOCKET}, for the path where the server is to listen"
            )),
            (true, true) => Err(format!("it has both {SOCKET} and {SOCKETS}")),
            _ => Ok(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::PathBuf;

    use super::ServerCommand;

    fn server(text: &str) -> ServerCommand {
        text.parse().expect("a command")
    }

    fn arguments(server: &ServerCommand, sockets: &[&str]) -> Option<Vec<String>> {
        let sockets: Vec<PathBuf> = sockets.iter().map(PathBuf::from).collect();
        let command = server.at(&sockets)?;
        let text = |word: &OsStr| word.to_string_lossy().into_owned();
        Some(command.get_args().map(text).collect())
    }

    #[test]
    fn the_socket_goes_where_the_place_is_and_stays_one_word() {
        let server = server("./my\\ server --at='unix:{socket},x' -v {socket}");
        let found = arguments(&server, &["/tmp/a b; c/s"]).expect("a command");
        assert_eq!(found, ["--at=unix:/tmp/a b; c/s,x", "-v", "/tmp/a b; c/s"]);
        let command = server.at(&["/s".into()]).expect("a command");
        assert_eq!(command.get_program(), "./my server");
    }

    #[test]
    fn a_server_of_several_devices_gets_all_sockets_and_one_of_one_is_not_asked_to() {
        let several = server("server -v --at={sockets}");
        assert_eq!(
            arguments(&several, &["/a", "/b"]).expect("a command"),
            ["-v", "--at=/a", "--at=/b"]
        );
        assert_eq!(
            arguments(&several, &["/a"]).expect("a command"),
            ["-v", "--at=/a"]
        );
        assert_eq!(arguments(&server("server {socket}"), &["/a", "/b"]), None);
        assert_eq!(arguments(&several, &[]), None);
    }

    #[test]
    fn a_command_that_cannot_work_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<ServerCommand>().expect_err("it cannot work");
        assert!(error("server --socket-path=/tmp/s").contains("{socket}"));
        assert!(
            error("{socket}").contains("{socket}"),
            "the program is not the socket"
        );
        assert!(error("server {socket} {sockets}").contains("both"));
        assert!(error("server '{socket}").contains("quote"));
        assert!(error(" ").contains("program"));
    }
}
