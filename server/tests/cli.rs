//! The program as a user and a service manager see it: output, exit status, signals, sockets.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

fn pagetrail(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagetrail"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("PAGETRAIL_LOG")
        .env_remove("LISTEN_FDS")
        .env_remove("NOTIFY_SOCKET");
    command
}

fn output(args: &[&str]) -> Output {
    pagetrail(args).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server, killed when the test is done with it.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts"),
        )
    }

    fn on_socket(path: &Path) -> Self {
        let server = Self::start(&mut pagetrail(&[
            "dma",
            &format!("--socket-path={}", path.display()),
        ]));
        wait_until("the socket is served", || UnixStream::connect(path).is_ok());
        server
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("signalled");
    }

    /// The exit code and what was logged.
    fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.0.try_wait().expect("waited");
            status.is_some()
        });
        let mut log = String::new();
        let mut stderr = self.0.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        (status.expect("ended").code(), log)
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn sigterm_and_sigint_drain_and_exit_0_and_remove_the_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let socket = place.path("s");
        let server = Server::on_socket(&socket);
        server.signal(signal);
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!socket.exists(), "{log}");
        assert!(log.contains("ready") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn what_a_killed_server_leaves_is_replaced() {
    let place = Place::new();
    let socket = place.path("s");
    drop(Server::on_socket(&socket));
    assert!(socket.exists(), "SIGKILL leaves the socket");
    Server::on_socket(&socket);
}

#[test]
fn a_socket_that_is_served_or_a_file_is_left_alone() {
    let place = Place::new();
    let (socket, file) = (place.path("s"), place.path("f"));
    let _listener = UnixListener::bind(&socket).expect("bind");
    std::fs::write(&file, "precious").expect("written");
    for path in [&socket, &file] {
        let output = output(&["dma", &format!("--socket-path={}", path.display())]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("choose another"), "{}", stderr(&output));
        assert!(path.exists());
    }
}

#[test]
fn socket_paths_that_cannot_be_say_what_to_do() {
    let place = Place::new();
    let missing = place.path("missing/s");
    let long = place.path(&"x".repeat(120));
    for (path, says) in [(missing, "make it first"), (long, "choose a shorter one")] {
        let output = output(&["dma", &format!("--socket-path={}", path.display())]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn descriptors_that_are_no_sockets_are_refused() {
    for (fd, says) in [("0", "stdin"), ("123", "not open")] {
        let output = output(&["dma", &format!("--fd={fd}")]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    let neither = output(&["dma"]);
    assert!(stderr(&neither).contains("--socket-path"), "{}", stderr(&neither));
}

/// The program with a listening socket as descriptor 3, as a service manager starts it.
fn activated(socket: &Path, arguments: &[&str]) -> Command {
    let listener = UnixListener::bind(socket).expect("bind");
    let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec "$0" "$@" 3<&0 </dev/null"#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_pagetrail")])
        .args(arguments);
    shell.stdin(OwnedFd::from(listener));
    shell
}

#[test]
fn the_service_manager_passes_the_socket_and_is_told_of_readiness_and_stopping() {
    let place = Place::new();
    let (socket, notify, config) = (place.path("s"), place.path("notify"), place.path("c.toml"));
    let device = "[[vm]]\nname = 'vm'\n[[vm.device]]\nkind = 'dma'\nsocket-activation = 'web'\n";
    std::fs::write(&config, device).expect("written");
    let config = config.to_str().expect("text");
    for arguments in [&["dma"][..], &["dma", "--fd=3"], &["serve", config]] {
        let manager = UnixDatagram::bind(&notify).expect("bind");
        manager.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut message = [0; 256];
        let mut told = || {
            let len = manager.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..len]).into_owned()
        };
        let server = Server::start(activated(&socket, arguments).env("NOTIFY_SOCKET", &notify));
        assert!(told().contains("READY=1"), "{arguments:?}");
        UnixStream::connect(&socket).expect("it is served");
        server.signal(Signal::TERM);
        assert!(told().contains("STOPPING=1"), "{arguments:?}");
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(
            socket.exists(),
            "the service manager's socket is its own to remove"
        );
        std::fs::remove_file(&socket).expect("removed");
        std::fs::remove_file(&notify).expect("removed");
    }
}

#[test]
fn json_logs_are_one_object_a_line() {
    let place = Place::new();
    let socket = place.path("s");
    let argument = format!("--socket-path={}", socket.display());
    let server = Server::start(&mut pagetrail(&["dma", "--log-format=json", &argument]));
    wait_until("the socket is there", || UnixStream::connect(&socket).is_ok());
    server.signal(Signal::TERM);
    let (_, log) = server.end();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(
            object["level"].is_string() && object["message"].is_string(),
            "{line}"
        );
    }
    assert!(log.lines().count() >= 2, "{log}");

    let failed = output(&["serve", "no-such-file.toml", "--log-format=json"]);
    let object: serde_json::Value =
        serde_json::from_slice(&failed.stderr).expect("the reason for the end, too");
    assert_eq!(object["level"], "ERROR");
}

#[test]
fn usage_errors_exit_2_and_others_1() {
    assert_eq!(output(&["dma", "--workers=0"]).status.code(), Some(2));
    assert_eq!(output(&["serve", "no-such-file.toml"]).status.code(), Some(1));
    assert_eq!(output(&["help", "nothing"]).status.code(), Some(1));
    assert_eq!(output(&["--log=pagetrail=loud", "help"]).status.code(), Some(1));
}

#[test]
fn what_is_asked_for_is_printed() {
    for args in [
        &["help"][..],
        &["help", "qemu"],
        &["help", "dma"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let output = output(args);
        assert!(
            output.status.success() && output.stdout.len() > 10 && output.stderr.is_empty(),
            "{args:?}"
        );
    }
    let description: serde_json::Value =
        serde_json::from_slice(&output(&["describe", "dma"]).stdout).expect("JSON");
    assert_eq!(description["type"], "dma");
}
