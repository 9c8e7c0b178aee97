//! Framing of data that comes from a driver.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::passthrough::model::FakeData;

fn identity() -> Identity {
    Identity {
        kind: "vfio".to_owned(),
        version: 1,
        config: Vec::new(),
    }
}

fn data(bytes: &[u8]) -> Box<dyn MigrationFile> {
    Box::new(FakeData(Arc::new(Mutex::new(bytes.to_vec()))))
}

#[test]
fn before_the_device_has_stopped_an_end_is_not_one() {
    let mut stream = Saving::new(data(b"ab"), &identity());
    let mut out = [0; 1000];
    let mut read = |state| stream.read(&mut out, state).unwrap();
    assert!(read(MigState::PreCopy) > 0 && read(MigState::PreCopy) > 0);
    assert_eq!(read(MigState::PreCopy), 0, "nothing at present");
}

#[test]
fn a_stopped_devices_stream_ends_once() {
    let mut stream = Saving::new(data(&[0]), &identity());
    let mut out = [0; 1000];
    let mut all = Vec::new();
    loop {
        let len = stream.read(&mut out, MigState::StopCopy).unwrap();
        if len == 0 {
            break;
        }
        all.extend(&out[..len]);
    }
    assert_eq!(stream.read(&mut out, MigState::StopCopy).unwrap(), 0);
    let mut incoming = Incoming::new(identity());
    assert_eq!(incoming.push(&all).unwrap(), Progress::Complete(Vec::new()));
}

#[test]
fn a_stopped_device_that_has_no_data_at_present_is_broken() {
    let mut stream = Saving::new(data(&[]), &identity());
    let mut out = [0; 1000];
    stream.read(&mut out, MigState::StopCopy).expect("the header");
    stream.read(&mut out, MigState::StopCopy).unwrap_err();
}
