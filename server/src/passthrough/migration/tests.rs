//! States, streams and quiet, against a driver in memory.

use super::*;
use crate::passthrough::model::{FakeDevice, FakePlace};

struct Rig {
    device: Arc<FakeDevice>,
    place: Arc<FakePlace>,
    relay: Relay,
}

fn identity(device: u64) -> Identity {
    Identity {
        kind: "vfio".to_owned(),
        version: 1,
        config: vec![("device".to_owned(), device)],
    }
}

fn rig(number: u64) -> Rig {
    let device = FakeDevice::new();
    let place = Arc::new(FakePlace::default());
    let kernel: Arc<dyn Device> = device.clone();
    let relay = Relay::of(&kernel, place.clone(), identity(number))
        .unwrap()
        .unwrap();
    Rig { device, place, relay }
}

/// Reads until there is nothing at present.
fn read_all(relay: &Relay, at_once: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut piece = vec![0; at_once];
    loop {
        match relay.read(&mut piece).unwrap() {
            0 => return all,
            len => all.extend(&piece[..len]),
        }
    }
}

/// A whole stream, part of it read while the device worked.
fn stream(rig: &Rig) -> Vec<u8> {
    rig.relay.set_state(MigState::PreCopy).unwrap();
    let mut stream = read_all(&rig.relay, 7);
    rig.relay.set_state(MigState::StopCopy).unwrap();
    stream.extend(read_all(&rig.relay, 1000));
    stream
}

#[test]
fn what_one_driver_saves_another_one_loads() {
    let (source, destination) = (rig(1), rig(1));
    let stream = stream(&source);
    for at_once in [1, 5, 1000] {
        destination.relay.set_state(MigState::Resuming).unwrap();
        for piece in stream.chunks(at_once) {
            destination.relay.write(piece).unwrap();
        }
        destination.relay.set_state(MigState::Running).unwrap();
        assert_eq!(
            destination.device.with(|state| state.loaded.lock().clone()),
            b"earlylate"
        );
    }
}

#[test]
fn a_stream_is_no_longer_than_was_said() {
    let source = rig(1);
    let whole = source.relay.data_size().unwrap();
    assert!(stream(&source).len() as u64 <= whole);
    assert!(source.relay.data_size().unwrap() < whole);
}

#[test]
fn the_stream_of_another_device_is_refused_before_the_driver_sees_it() {
    let stream = stream(&rig(1));
    let destination = rig(2);
    destination.relay.set_state(MigState::Resuming).unwrap();
    let refused = destination.relay.write(&stream).unwrap_err();
    assert_eq!(refused.errno(), Errno::INVAL);
    assert!(
        refused.to_string().contains("device: 2 here, 1 in the stream"),
        "{refused}"
    );
    assert!(destination.device.with(|state| state.loaded.lock().is_empty()));
    assert!(destination.relay.set_state(MigState::Running).is_err());
    assert_eq!(destination.relay.state(), MigState::Resuming);
    destination.relay.reset(|| destination.device.reset()).unwrap();
    assert_eq!(destination.relay.state(), MigState::Running);
}

#[test]
fn a_stream_that_is_damaged_or_cut_off_is_not_left_with() {
    let good = stream(&rig(1));
    for position in 0..good.len() {
        let destination = rig(1);
        destination.relay.set_state(MigState::Resuming).unwrap();
        let mut bad = good.clone();
        bad[position] ^= 1;
        let written = destination.relay.write(&bad);
        assert!(
            written.is_err() || destination.relay.set_state(MigState::Stop).is_err(),
            "byte {position}"
        );
        let destination = rig(1);
        destination.relay.set_state(MigState::Resuming).unwrap();
        destination.relay.write(&good[..position]).unwrap();
        let left = destination.relay.set_state(MigState::Stop);
        assert_eq!(left.is_ok(), position == 0, "cut off at {position}");
    }
}

#[test]
fn data_that_the_driver_refuses_fails_the_stream() {
    let source = rig(1);
    source.device.with(|state| state.late = b"bad!".to_vec());
    let stream = stream(&source);
    let destination = rig(1);
    destination.relay.set_state(MigState::Resuming).unwrap();
    let refused = destination.relay.write(&stream).unwrap_err();
    assert!(refused.to_string().contains("driver"), "{refused}");
    assert!(destination.relay.set_state(MigState::Running).is_err());
}

#[test]
fn a_device_is_quiet_in_the_states_without_dma_and_in_no_others() {
    use MigState as S;
    let rig = rig(1);
    let states = [
        (S::RunningP2p, false),
        (S::Stop, true),
        (S::StopCopy, true),
        (S::Stop, true),
        (S::RunningP2p, false),
        (S::PreCopyP2p, false),
        (S::StopCopy, true),
        (S::Running, false),
        (S::PreCopy, false),
        (S::Running, false),
        (S::Resuming, true),
        (S::Stop, true),
        (S::Running, false),
    ];
    for (state, quiet) in states {
        rig.relay.set_state(state).unwrap();
        assert_eq!(rig.place.is_quiet(), quiet, "{state}");
    }
}

#[test]
fn a_device_that_is_reset_behind_the_relay_is_not_quiet_and_has_no_stream() {
    let rig = rig(1);
    for state in [MigState::Stop, MigState::StopCopy, MigState::Resuming] {
        rig.relay.set_state(state).unwrap();
        assert_eq!(rig.relay.follow(), None);
        rig.device.reset().unwrap();
        assert_eq!(rig.relay.follow(), Some((state, MigState::Running)));
        assert!(!rig.place.is_quiet());
        assert!(rig.relay.read(&mut [0; 8]).is_err() && rig.relay.write(b"x").is_err());
    }
}

#[test]
fn a_device_that_the_host_resets_is_quiet_to_nobody_though_it_is_not_asked() {
    let rig = rig(1);
    for state in [MigState::Stop, MigState::StopCopy, MigState::Resuming] {
        rig.relay.set_state(state).unwrap();
        assert!(rig.place.is_quiet());
        rig.device.reset().unwrap();
        assert!(!rig.place.is_quiet(), "{state}");
        rig.relay.follow();
        assert!(!rig.place.is_held(), "{state}");
    }
}

#[test]
fn a_device_is_not_held_quiet_while_it_is_led_from_one_state_to_another() {
    let rig = rig(1);
    rig.relay.set_state(MigState::Stop).unwrap();
    let (place, held) = (Arc::clone(&rig.place), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&held);
    rig.device.at_change(move || seen.lock().push(place.is_held()));
    for state in [
        MigState::StopCopy,
        MigState::Stop,
        MigState::Resuming,
        MigState::Running,
    ] {
        rig.relay.set_state(state).unwrap();
    }
    assert_eq!(*held.lock(), [false; 4]);
}

#[test]
fn a_device_whose_driver_fails_is_where_the_driver_says() {
    let rig = rig(1);
    rig.relay.set_state(MigState::Stop).unwrap();
    rig.device.with(|state| state.next_failure = Some(1));
    assert!(rig.relay.set_state(MigState::Running).is_err());
    assert_eq!((rig.relay.state(), rig.place.is_quiet()), (MigState::Stop, true));
    rig.device.with(|state| state.next_failure = Some(0));
    assert!(rig.relay.set_state(MigState::StopCopy).is_err());
    assert_eq!(
        (rig.relay.state(), rig.place.is_quiet()),
        (MigState::Error, false)
    );
    let mut out = [0; 8];
    assert!(matches!(
        rig.relay.read(&mut out),
        Err(RelayError::WrongState(MigState::Error))
    ));
}

#[test]
fn data_is_there_in_its_states_only() {
    let rig = rig(1);
    let mut out = [0; 8];
    assert!(rig.relay.read(&mut out).is_err() && rig.relay.write(b"x").is_err());
    assert!(rig.relay.precopy_info().is_err());
    rig.relay.set_state(MigState::PreCopy).unwrap();
    assert!(
        rig.relay.precopy_info().unwrap().initial_bytes > 5,
        "the header, too"
    );
    assert!(rig.relay.write(b"x").is_err());
    rig.relay.set_state(MigState::Running).unwrap();
    assert!(rig.relay.read(&mut out).is_err());
}

#[test]
fn a_driver_without_migration_has_none() {
    let device = FakeDevice::new();
    device.with(|state| state.migration = None);
    let device: Arc<dyn Device> = device;
    let relay = Relay::of(&device, Arc::new(FakePlace::default()), identity(1)).unwrap();
    assert!(relay.is_none());
}
