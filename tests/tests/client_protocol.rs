//! The client against servers that misbehave: every call ends in time, with an error that says what happened.

mod model;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::{Fault, Model};
use vfio_user_check::client::{Client, Error, Violation};
use vfio_user_check::wire::{Command, consts};

fn serve(fault: Fault) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Model::start(&folder.path().join("socket"), fault);
    (folder, model)
}

#[test]
fn no_server_is_an_error_that_says_what_to_do() {
    let Err(error) = Client::connect(&PathBuf::from("/nonexistent/socket")) else {
        panic!("it connected to nothing");
    };
    assert!(error.to_string().contains("--socket-path"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_a_timeout() {
    let (_folder, model) = serve(Fault::Silent);
    let mut client = Client::connect(model.path()).expect("the handshake works");
    client.set_timeout(Duration::from_millis(100));
    let began = Instant::now();
    assert!(matches!(
        client.device_info(),
        Err(Error::Timeout {
            command: Command::DeviceGetInfo,
            ..
        })
    ));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_reply_to_something_else_is_a_violation() {
    let (_folder, model) = serve(Fault::WrongId);
    let mut client = Client::connect(model.path()).expect("the handshake works");
    let error = client.device_info().expect_err("the id is wrong");
    assert!(matches!(
        error,
        Error::Protocol {
            violation: Violation::Id { .. },
            ..
        }
    ));
}

#[test]
fn a_late_reply_does_not_shift_the_stream() {
    let (_folder, model) = serve(Fault::SlowOnce);
    let mut client = Client::connect(model.path()).expect("the handshake works");
    client.set_timeout(Duration::from_millis(100));
    let mut id = [0; 4];
    assert!(matches!(
        client.region_read(consts::REGION_BAR0, 0, &mut id),
        Err(Error::Timeout { .. })
    ));
    client.set_timeout(Duration::from_secs(2));
    client
        .region_read(consts::REGION_CONFIG, 0, &mut id)
        .expect("the next reply is its own");
    assert_eq!(id, [0x34, 0x12, 0x74, 0x70]);
}

#[test]
fn a_server_that_goes_away_is_told_apart_from_one_that_is_slow() {
    let (_folder, model) = serve(Fault::None);
    let mut client = Client::connect(model.path()).expect("the handshake works");
    drop(model);
    let error = client.device_info().expect_err("the server is gone");
    assert!(error.is_closed(), "{error:?}");
}

#[test]
fn an_errno_of_the_server_is_kept() {
    let (_folder, model) = serve(Fault::None);
    let mut client = Client::connect(model.path()).expect("the handshake works");
    let error = client
        .dma_unmap(0x1000, 0x1000)
        .expect_err("nothing is mapped there");
    assert_eq!(error.errno(), Some(consts::ENOENT));
}
