//! A device of one number: enough to see that what arrives is what was saved.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Quiesce,
    Run,
    Save,
    Restore,
    Resumed,
}

#[derive(Default)]
struct Device {
    value: Cell<u8>,
    workers: u64,
    calls: RefCell<Vec<Call>>,
    broken: Cell<Option<Call>>,
}

impl Device {
    fn with_value(value: u8) -> Self {
        Self {
            value: Cell::new(value),
            ..Self::default()
        }
    }

    fn called(&self, call: Call) -> Result<(), &'static str> {
        self.calls.borrow_mut().push(call);
        if self.broken.get() == Some(call) {
            Err("broken on purpose")
        } else {
            Ok(())
        }
    }
}

impl Target for Device {
    fn identity(&self) -> Identity {
        Identity {
            kind: "test".into(),
            version: 1,
            config: vec![("workers".into(), self.workers)],
        }
    }
    fn max_state_len(&self) -> usize {
        1
    }
    fn quiesce(&self) -> Result<(), TargetError> {
        Ok(self.called(Call::Quiesce)?)
    }
    fn run(&self) -> Result<(), TargetError> {
        Ok(self.called(Call::Run)?)
    }
    fn save(&self) -> Result<Vec<u8>, SaveError> {
        self.called(Call::Save).map_err(|error| SaveError(error.into()))?;
        Ok(vec![self.value.get()])
    }
    fn restore(&self, state: &[u8]) -> Result<(), RestoreError> {
        self.called(Call::Restore)
            .map_err(|error| RestoreError(error.into()))?;
        let &[value] = state else {
            return Err(RestoreError("not one byte".into()));
        };
        self.value.set(value);
        Ok(())
    }
    fn resumed(&self) {
        let _ = self.called(Call::Resumed);
    }
}

fn read_all(migration: &mut Migration) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut buffer = [0; 7];
    loop {
        match migration.read(&mut buffer).expect("a state with a stream") {
            0 => return stream,
            len => stream.extend(&buffer[..len]),
        }
    }
}

/// A migration in `state`, reached from RUNNING.
fn at(state: MigState, device: &Device) -> Migration {
    let mut migration = Migration::new();
    migration
        .set_state(state, device)
        .expect("every state but ERROR can be reached from RUNNING");
    migration
}

fn saved(device: &Device) -> Vec<u8> {
    read_all(&mut at(MigState::StopCopy, device))
}

#[test]
fn what_was_saved_arrives() {
    let (source, destination) = (Device::with_value(7), Device::default());
    let mut saving = at(MigState::PreCopy, &source);
    let mut stream = read_all(&mut saving);
    source.value.set(8);
    saving
        .set_state(MigState::StopCopy, &source)
        .expect("the source stops");
    stream.extend(read_all(&mut saving));

    let mut loading = at(MigState::Resuming, &destination);
    loading.write(&stream, &destination).expect("the stream is valid");
    loading
        .set_state(MigState::Running, &destination)
        .expect("the destination runs");
    assert_eq!(
        destination.value.get(),
        8,
        "the state at the stop, not the one in pre-copy"
    );
    let calls = destination.calls.borrow();
    assert!(
        calls.ends_with(&[Call::Restore, Call::Run, Call::Resumed]),
        "{calls:?}"
    );
}

#[test]
fn a_restored_device_says_so_when_it_first_runs_and_not_again() {
    let (source, destination) = (Device::with_value(7), Device::default());
    let mut loading = at(MigState::Resuming, &destination);
    loading
        .write(&saved(&source), &destination)
        .expect("the stream is valid");
    loading
        .set_state(MigState::Stop, &destination)
        .expect("the state is taken over");

    let resumed = || {
        let calls = destination.calls.borrow();
        calls.iter().filter(|call| **call == Call::Resumed).count()
    };
    assert_eq!(resumed(), 0, "leaving RESUMING");
    for state in [MigState::Running, MigState::Stop, MigState::Running] {
        loading
            .set_state(state, &destination)
            .expect("the device runs and stops");
    }
    assert_eq!(resumed(), 1, "the first run, and only that one");
}

#[test]
fn the_state_is_saved_only_after_the_device_is_quiescent() {
    for way in [
        &[MigState::StopCopy][..],
        &[MigState::PreCopy, MigState::StopCopy],
        &[MigState::PreCopyP2p, MigState::StopCopy],
    ] {
        let device = Device::default();
        let mut migration = Migration::new();
        for &state in way {
            migration.set_state(state, &device).expect("allowed");
        }
        assert_eq!(
            *device.calls.borrow(),
            [Call::Quiesce, Call::Save],
            "on the way {way:?}"
        );
    }
}

#[test]
fn a_migration_given_up_lets_the_device_go_on_and_the_next_one_begins_anew() {
    let device = Device::with_value(1);
    let mut migration = at(MigState::PreCopy, &device);
    let first = read_all(&mut migration);
    migration.set_state(MigState::Running, &device).expect("given up");
    assert!(
        device.calls.borrow().is_empty(),
        "the device worked all the while"
    );
    migration.set_state(MigState::PreCopy, &device).expect("again");
    assert_eq!(
        read_all(&mut migration),
        first,
        "a new stream begins at its beginning"
    );
}

#[test]
fn a_device_that_does_not_stop_is_failed_until_reset() {
    let device = Device::default();
    device.broken.set(Some(Call::Quiesce));
    let mut migration = at(MigState::PreCopy, &device);
    let error = migration
        .set_state(MigState::StopCopy, &device)
        .expect_err("it does not stop");
    assert!(matches!(error, SetStateError::Quiesce(_)), "{error}");
    assert!(migration.is_failed());
    migration.read(&mut [0; 8]).expect_err("the stream is gone");
    for state in MigState::ALL {
        migration
            .set_state(state, &device)
            .expect_err("only a reset leads out");
    }
    migration.reset();
    assert_eq!(migration.state(), MigState::Running);
}

#[test]
fn a_failure_on_the_way_leaves_the_last_state_that_holds() {
    let cases = [
        (MigState::Running, Call::Save, MigState::StopCopy, MigState::Stop),
        (
            MigState::PreCopy,
            Call::Save,
            MigState::StopCopy,
            MigState::PreCopyP2p,
        ),
        (MigState::Stop, Call::Run, MigState::Running, MigState::RunningP2p),
        (
            MigState::PreCopyP2p,
            Call::Run,
            MigState::PreCopy,
            MigState::PreCopyP2p,
        ),
        (
            MigState::StopCopy,
            Call::Run,
            MigState::Running,
            MigState::RunningP2p,
        ),
    ];
    for (from, broken, to, reached) in cases {
        let device = Device::default();
        let mut migration = at(from, &device);
        device.broken.set(Some(broken));
        migration.set_state(to, &device).expect_err("broken on purpose");
        assert_eq!(migration.state(), reached, "from {from} to {to}");
        device.broken.set(None);
        migration
            .set_state(MigState::Running, &device)
            .expect("the source goes on");
    }
}

#[test]
fn resuming_is_left_with_a_whole_state_or_with_none_written() {
    let stream = saved(&Device::with_value(3));
    let device = Device::with_value(9);

    let mut untouched = at(MigState::Resuming, &device);
    untouched
        .set_state(MigState::Running, &device)
        .expect("nothing was migrated");
    assert!(!device.calls.borrow().contains(&Call::Resumed));

    for len in 1..stream.len() {
        let mut migration = at(MigState::Resuming, &device);
        migration
            .write(&stream[..len], &device)
            .expect("so far it is valid");
        let error = migration
            .set_state(MigState::Running, &device)
            .expect_err("incomplete");
        assert_eq!(error.errno(), Errno::INVAL);
        assert_eq!(migration.state(), MigState::Resuming, "after {len} bytes");
        assert_eq!(device.value.get(), 9);
        migration
            .write(&stream[len..], &device)
            .expect("the rest may still come");
        migration
            .set_state(MigState::Stop, &device)
            .expect("now it is whole");
        device.value.set(9);
    }
}

#[test]
fn a_refused_stream_leaves_the_device_as_it_was_and_able_to_start_again() {
    let stream = saved(&Device {
        workers: 4,
        ..Device::default()
    });
    let device = Device {
        workers: 2,
        ..Device::with_value(9)
    };
    let mut migration = at(MigState::Resuming, &device);
    let error = migration
        .write(&stream, &device)
        .expect_err("another configuration");
    assert_eq!(
        error.to_string(),
        "the stream is for another device: workers: 2 here, 4 in the stream"
    );
    migration
        .write(&saved(&device), &device)
        .expect_err("a refused stream cannot be mended");
    migration
        .set_state(MigState::Stop, &device)
        .expect_err("there is no state to leave with");
    assert_eq!((migration.state(), device.value.get()), (MigState::Resuming, 9));

    migration.reset();
    migration.set_state(MigState::Resuming, &device).expect("again");
    let good = saved(&Device {
        workers: 2,
        ..Device::with_value(5)
    });
    migration.write(&good, &device).expect("a good stream");
    assert_eq!(device.value.get(), 5);
}

#[test]
fn the_write_that_completes_the_stream_returns_the_devices_error() {
    let stream = saved(&Device::default());
    let device = Device::default();
    let mut migration = at(MigState::Resuming, &device);
    device.broken.set(Some(Call::Restore));
    let (head, last) = stream.split_at(stream.len() - 1);
    migration.write(head, &device).expect("the end has not come");
    let error = migration.write(last, &device).expect_err("the device refuses");
    assert!(
        matches!(error, MigDataError::Stream(StreamError::Restore(_))),
        "{error}"
    );
    migration
        .set_state(MigState::Stop, &device)
        .expect_err("there is no state to leave with");
}

#[test]
fn bytes_after_the_end_are_refused_before_the_device_starts() {
    let stream = saved(&Device::with_value(3));
    let device = Device::with_value(9);
    let mut together = at(MigState::Resuming, &device);
    together
        .write(&[&stream[..], &[0]].concat(), &device)
        .expect_err("trailing");
    assert_eq!(device.value.get(), 9, "nothing was restored");
    let mut apart = at(MigState::Resuming, &device);
    apart.write(&stream, &device).expect("whole");
    apart.write(&[0], &device).expect_err("trailing");
    apart
        .set_state(MigState::Stop, &device)
        .expect_err("the stream was not what it seemed");
}

#[test]
fn the_announced_size_is_an_upper_bound_in_every_state() {
    let device = Device::with_value(1);
    let whole = saved(&device).len() as u64;
    for state in [
        MigState::Running,
        MigState::RunningP2p,
        MigState::PreCopy,
        MigState::PreCopyP2p,
        MigState::Stop,
    ] {
        assert_eq!(at(state, &device).data_size(&device), whole, "in {state}");
    }
    let mut migration = at(MigState::PreCopy, &device);
    let header = migration.precopy_info().expect("pre-copy").initial_bytes;
    assert_eq!(read_all(&mut migration).len() as u64, header);
    assert_eq!(migration.precopy_info().expect("pre-copy").initial_bytes, 0);
    assert_eq!(migration.data_size(&device), whole - header);
    migration.set_state(MigState::StopCopy, &device).expect("allowed");
    assert_eq!(migration.data_size(&device), whole - header);
    migration.precopy_info().expect_err("not pre-copy any more");
    read_all(&mut migration);
    assert_eq!(migration.data_size(&device), 0);
}

proptest! {
    /// Whatever a client asks for in whatever order, data can be read in the saving group, written in RESUMING, and nowhere else.
    #[test]
    fn data_moves_only_in_the_states_that_have_a_stream(asked in prop::collection::vec(0_usize..8, 1..40)) {
        let device = Device::default();
        let mut migration = Migration::new();
        for state in asked.into_iter().map(|index| MigState::ALL[index]) {
            let before = migration.state();
            if migration.set_state(state, &device).is_err() {
                prop_assert!(!migration.is_failed(), "a refused request fails no device");
                prop_assert_eq!(migration.state(), before);
            }
            let at = migration.state();
            let is_saving = matches!(at, MigState::PreCopy | MigState::PreCopyP2p | MigState::StopCopy);
            prop_assert_eq!(migration.read(&mut [0; 4]).is_ok(), is_saving);
            prop_assert_eq!(migration.write(&[], &device).is_ok(), at == MigState::Resuming);
            let is_pre_copy = matches!(at, MigState::PreCopy | MigState::PreCopyP2p);
            prop_assert_eq!(migration.precopy_info().is_ok(), is_pre_copy);
        }
    }
}
