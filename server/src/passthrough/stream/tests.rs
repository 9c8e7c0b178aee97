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
    stream.read(&mut out, MigState::PreCopy).expect("the header");
    stream.read(&mut out, MigState::StopCopy).unwrap_err();
}

#[test]
fn a_stopped_devices_reads_are_short_at_the_end_only() {
    let all = [&[b'x'; 100][..], &[0]].concat();
    let mut stream = Saving::new(data(&all), &identity());
    let mut out = [0; 64];
    let mut lengths = Vec::new();
    while lengths.last().is_none_or(|last| *last == out.len()) {
        lengths.push(stream.read(&mut out, MigState::StopCopy).unwrap());
    }
    assert!(lengths.len() > 3, "{lengths:?}");
    assert_eq!(stream.read(&mut out, MigState::StopCopy).unwrap(), 0);
}

/// Gives as much as is asked for.
#[derive(Debug)]
struct Generous(Mutex<usize>);

impl MigrationFile for Generous {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        let mut left = self.0.lock();
        let len = out.len().min(*left);
        *left -= len;
        Ok(len)
    }

    fn write(&self, _data: &[u8]) -> io::Result<usize> {
        unreachable!("it is read")
    }

    fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        Ok(PrecopyInfo {
            initial_bytes: u64::MAX,
            dirty_bytes: u64::MAX,
        })
    }
}

#[test]
fn a_stream_that_is_read_in_small_pieces_is_no_longer_than_was_said() {
    const LEN: usize = 10_000;
    let mut stream = Saving::new(Box::new(Generous(Mutex::new(LEN))), &identity());
    let mut len = 0;
    while stream.read(&mut [0], MigState::StopCopy).unwrap() > 0 {
        len += 1;
    }
    assert!(len <= whole_len(&identity(), LEN as u64), "{len}");
}

#[test]
fn numbers_of_the_driver_do_not_overflow() {
    let stream = Saving::new(Box::new(Generous(Mutex::new(0))), &identity());
    assert_eq!(stream.bytes_to_end(u64::MAX), u64::MAX);
    assert_eq!(whole_len(&identity(), u64::MAX), u64::MAX);
    assert_eq!(stream.precopy_info().unwrap().initial_bytes, u64::MAX);
}
