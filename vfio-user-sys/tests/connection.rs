//! What the series adds to libvfio-user, seen from the client: the message and version callbacks, connected sockets, deadlines.

mod support;

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Deadlines, ECHO, End, GET_INFO, LARGE, REFUSE, Server, call, is_closed, message, negotiate, receive,
    version,
};

const LIMIT: Duration = Duration::from_millis(200);
/// The server's clock starts a little before or after the test's.
const NEARLY_LIMIT: Duration = Duration::from_millis(195);
const LIMITED: Deadlines = Deadlines {
    receive: 200,
    send: 200,
};
const UNLIMITED: Deadlines = Deadlines { receive: 0, send: 0 };

/// Time that a loaded machine may take on top of a limit.
const SLACK: Duration = Duration::from_secs(5);

fn connected(deadlines: Deadlines) -> (Server, UnixStream) {
    let (server, mut client) = Server::start(deadlines);
    negotiate(&mut client);
    (server, client)
}

/// Asserts that the connection ends, not before the limit and not long after it.
fn assert_times_out(server: Server, client: &mut UnixStream, since: Instant, end: &End) {
    assert!(is_closed(client));
    assert!(since.elapsed() >= NEARLY_LIMIT, "{:?}", since.elapsed());
    assert!(since.elapsed() < LIMIT + SLACK, "{:?}", since.elapsed());
    assert_eq!(server.end(), *end);
}

#[test]
fn the_callback_answers_commands_that_the_library_does_not_know() {
    let (server, mut client) = connected(UNLIMITED);
    assert_eq!(
        call(&mut client, &message(ECHO, b"payload")),
        Ok(b"payload".to_vec())
    );
    assert_eq!(server.echoes(), 1);
}

#[test]
fn the_callback_refuses_with_its_errno() {
    let (_server, mut client) = connected(UNLIMITED);
    assert_eq!(
        call(&mut client, &message(REFUSE, b"payload")),
        Err(libc::EXDEV as u32)
    );
}

#[test]
fn messages_that_are_passed_on_are_answered_by_the_library() {
    let (_server, mut client) = connected(UNLIMITED);
    let info = call(
        &mut client,
        &message(GET_INFO, &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    );
    assert_eq!(info.expect("device info").len(), 16);
}

#[test]
fn the_callback_puts_capabilities_into_the_version_reply_and_takes_them_out() {
    let (_server, mut client) = Server::start(UNLIMITED);
    let reply = call(&mut client, &version(Some("{\"capabilities\":{}}"))).expect("the version is accepted");
    let json = String::from_utf8_lossy(&reply[4..]).replace(' ', "");
    assert!(json.contains("\"added\":true"), "{json}");
    assert!(json.contains("\"max_msg_fds\":5"), "{json}");
    assert_eq!(json.matches("max_msg_fds").count(), 1, "{json}");
    assert!(!json.contains("max_data_xfer_size"), "{json}");
}

#[test]
fn a_refused_client_learns_why_and_is_disconnected() {
    let (server, mut client) = Server::start(UNLIMITED);
    assert_eq!(
        call(&mut client, &version(Some("{\"refuse\":1}"))),
        Err(libc::EBUSY as u32)
    );
    assert!(is_closed(&mut client));
    assert_eq!(server.end(), End::NotAttached(libc::EBUSY));
}

#[test]
fn a_client_that_says_nothing_is_disconnected_during_negotiation() {
    let started = Instant::now();
    let (server, mut client) = Server::start(LIMITED);
    assert_times_out(server, &mut client, started, &End::NotAttached(libc::ETIMEDOUT));
}

#[test]
fn a_client_that_stops_in_a_header_is_disconnected() {
    let (server, mut client) = connected(LIMITED);
    let started = Instant::now();
    client
        .write_all(&message(ECHO, b"payload")[..7])
        .expect("half a header");
    assert_times_out(server, &mut client, started, &End::Ran(libc::ENOTCONN));
}

#[test]
fn a_client_that_stops_in_a_payload_is_disconnected() {
    let (server, mut client) = connected(LIMITED);
    let started = Instant::now();
    client
        .write_all(&message(ECHO, b"payload")[..20])
        .expect("half a payload");
    assert_times_out(server, &mut client, started, &End::Ran(libc::ENOTCONN));
}

#[test]
fn a_client_that_sends_byte_by_byte_does_not_win_time() {
    let (server, mut client) = connected(LIMITED);
    let bytes = message(ECHO, &[0; 4096]);
    let started = Instant::now();
    let sent = bytes.iter().take_while(|byte| {
        thread::sleep(Duration::from_millis(10));
        client.write_all(&[**byte]).is_ok()
    });
    assert!(sent.count() < bytes.len(), "nobody stopped the client");
    assert_times_out(server, &mut client, started, &End::Ran(libc::ENOTCONN));
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let (server, mut client) = connected(LIMITED);
    let started = Instant::now();
    client
        .write_all(&message(LARGE, b"please"))
        .expect("the message is sent");
    assert_eq!(server.end(), End::Ran(libc::ENOTCONN));
    assert!(started.elapsed() >= NEARLY_LIMIT && started.elapsed() < LIMIT + SLACK);
    assert!(is_closed(&mut client));
}

#[test]
fn a_client_that_reads_late_gets_all_of_a_large_reply() {
    let (_server, mut client) = connected(UNLIMITED);
    client
        .write_all(&message(LARGE, b"please"))
        .expect("the message is sent");
    thread::sleep(LIMIT);
    assert_eq!(receive(&mut client).expect("a reply").len(), support::LARGE_REPLY);
}

#[test]
fn an_idle_client_is_kept() {
    let (_server, mut client) = connected(LIMITED);
    thread::sleep(LIMIT * 2);
    assert_eq!(
        call(&mut client, &message(ECHO, b"payload")),
        Ok(b"payload".to_vec())
    );
}

#[test]
fn a_message_in_pieces_is_received_once_and_whole() {
    let (server, mut client) = connected(UNLIMITED);
    for byte in message(ECHO, b"payload") {
        client.write_all(&[byte]).expect("one byte");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(receive(&mut client), Ok(b"payload".to_vec()));
    assert_eq!(server.echoes(), 1);
}

#[test]
fn a_closed_connection_is_reported_as_such() {
    let (server, client) = connected(UNLIMITED);
    drop(client);
    assert_eq!(server.end(), End::Ran(libc::ENOTCONN));
}

/// How another thread of the server stops one that waits: the two ends of a pair are shut down alike.
#[test]
fn shutdown_ends_the_wait_for_a_message_and_for_the_rest_of_one() {
    for sent in [0, 7, 20] {
        let (server, mut client) = connected(UNLIMITED);
        client
            .write_all(&message(ECHO, b"payload")[..sent])
            .expect("a part of a message");
        thread::sleep(Duration::from_millis(50));
        client.shutdown(Shutdown::Both).expect("a shutdown");
        assert_eq!(server.end(), End::Ran(libc::ENOTCONN));
    }
}
