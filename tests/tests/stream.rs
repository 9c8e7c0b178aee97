//! The stream of saved state: what is not exactly a stream of the same device is refused, by the write that completes it or
//! by leaving RESUMING, and leaves a device that can start again.

mod common;

use std::time::Duration;

use common::{Host, dma, generator};
use vfio_user_check::client::Error;
use vfio_user_check::migrate::read_stream;
use vfio_user_check::vmm::{Device, Vm};
use vfio_user_check::wire::{MigState, consts};

fn running(host: &Host) -> Vm {
    let mut vm = host.vm(&common::memory());
    dma(&mut vm).start_generator(&generator(64)).expect("it starts");
    dma(&mut vm)
        .await_progress(10, Duration::from_secs(5))
        .expect("it writes");
    vm
}

/// The state of a device that runs; it is stopped by this.
fn saved(device: &mut Device) -> Vec<u8> {
    device
        .client()
        .set_mig_state(MigState::StopCopy)
        .expect("it stops");
    read_stream(device, 1 << 20).expect("a stream")
}

/// Offers a stream and says whether it was taken.
fn offer(device: &mut Device, stream: &[u8], chunk: usize) -> Result<(), Error> {
    device.client().device_reset()?;
    device.client().set_mig_state(MigState::Resuming)?;
    for part in stream.chunks(chunk.max(1)) {
        device.client().mig_data_write(part)?;
    }
    // As a VMM does: the command register is its own, and the reset has cleared it.
    device.enable()?;
    device.client().set_mig_state(MigState::Running)
}

fn assert_refused(device: &mut Device, stream: &[u8], what: &str) {
    match offer(device, stream, 1 << 20) {
        Err(Error::Server { errno, .. }) => assert_ne!(errno, 0, "{what}"),
        Ok(()) => panic!("{what}: the stream was taken"),
        Err(error) => panic!("{what}: {error}"),
    }
    device
        .client()
        .device_reset()
        .expect("a refused stream leaves a device that can be reset");
    let state = device.client().mig_state().expect("a state");
    assert_eq!(state, MigState::Running, "{what}");
}

fn assert_starts_again(vm: &mut Vm, stream: &[u8]) {
    offer(&mut vm.devices()[0], stream, 1 << 20).expect("the right stream is taken afterwards");
    dma(vm)
        .await_progress(10, Duration::from_secs(5))
        .expect("and the device goes on");
}

/// Positions all over a stream: the first and last bytes, and some between.
fn positions(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 97).max(1);
    (0..length.min(24))
        .chain((0..length).step_by(step))
        .chain(length.saturating_sub(16)..length)
}

#[test]
fn the_stream_of_the_same_device_is_taken_in_pieces_of_any_size() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let stream = saved(&mut vm.devices()[0]);
    for chunk in [1, 3, 64, 4096] {
        offer(&mut vm.devices()[0], &stream, chunk)
            .unwrap_or_else(|error| panic!("pieces of {chunk}: {error}"));
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let stream = saved(&mut vm.devices()[0]);
    for position in positions(stream.len()) {
        let mut bad = stream.clone();
        bad[position] ^= 1 << (position % 8);
        assert_refused(
            &mut vm.devices()[0],
            &bad,
            &format!("a bit of byte {position} of {}", stream.len()),
        );
    }
    assert_starts_again(&mut vm, &stream);
}

#[test]
fn a_truncated_stream_is_refused_at_every_length() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let stream = saved(&mut vm.devices()[0]);
    // Without one byte nothing was migrated, and RESUMING can be left.
    for length in positions(stream.len()).filter(|length| *length > 0) {
        assert_refused(
            &mut vm.devices()[0],
            &stream[..length],
            &format!("{length} of {} bytes", stream.len()),
        );
    }
    assert_starts_again(&mut vm, &stream);
}

#[test]
fn bytes_after_the_end_are_refused() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let stream = saved(&mut vm.devices()[0]);
    assert_refused(
        &mut vm.devices()[0],
        &[stream.as_slice(), &[0]].concat(),
        "one byte more",
    );
    assert_refused(
        &mut vm.devices()[0],
        &[stream.as_slice(), &stream].concat(),
        "the stream twice",
    );
    assert_starts_again(&mut vm, &stream);
}

#[test]
fn a_foreign_stream_is_refused() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let stream = saved(&mut vm.devices()[0]);
    let mut noise = 0x1234_5678_u32;
    for length in [1, 16, 100, 4096, 1 << 20] {
        let foreign: Vec<u8> = (0..length)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        assert_refused(
            &mut vm.devices()[0],
            &foreign,
            &format!("{length} bytes of noise"),
        );
        assert_refused(&mut vm.devices()[0], &vec![0; length], &format!("{length} zeros"));
        assert_refused(
            &mut vm.devices()[0],
            &vec![0xff; length],
            &format!("{length} bytes of 0xff"),
        );
    }
    assert_starts_again(&mut vm, &stream);
}

#[test]
fn the_write_that_completes_a_bad_stream_says_so() {
    let host = Host::start(1);
    let mut vm = running(&host);
    let device = &mut vm.devices()[0];
    let mut stream = saved(device);
    let middle = stream.len() / 2;
    stream[middle] ^= 1;
    device.client().device_reset().expect("a reset");
    device
        .client()
        .set_mig_state(MigState::Resuming)
        .expect("it resumes");
    let error = device
        .client()
        .mig_data_write(&stream)
        .expect_err("QEMU learns of it at the VM's start otherwise");
    assert!(error.errno().is_some());
}

#[test]
fn a_device_of_another_configuration_refuses_the_stream_and_says_why() {
    let (one, two) = (Host::with_workers(1, 1), Host::with_workers(1, 3));
    let mut source = running(&one);
    let stream = saved(&mut source.devices()[0]);
    let mut host = two;
    let mut dest = host.vm(&common::memory());
    assert_refused(&mut dest.devices()[0], &stream, "one worker to three");
    let log = host.server().log();
    assert!(
        log.to_lowercase().contains("worker") || log.to_lowercase().contains("lane"),
        "the log does not say why:\n{log}"
    );
}

#[test]
fn the_stream_is_read_and_written_in_its_states_alone() {
    let host = Host::start(1);
    let mut client = host.client();
    for state in [MigState::Running, MigState::Stop, MigState::RunningP2p] {
        client.set_mig_state(state).expect("it gets there");
        assert_eq!(
            client.mig_data_read(4096).expect_err("no stream").errno(),
            Some(consts::EINVAL),
            "{state}"
        );
        assert_eq!(
            client.mig_data_write(&[1]).expect_err("no stream").errno(),
            Some(consts::EINVAL),
            "{state}"
        );
    }
    client.set_mig_state(MigState::StopCopy).expect("it stops");
    assert_eq!(
        client.mig_data_write(&[1]).expect_err("it saves").errno(),
        Some(consts::EINVAL)
    );
    client.set_mig_state(MigState::Resuming).expect("it resumes");
    assert_eq!(
        client.mig_data_read(4096).expect_err("it loads").errno(),
        Some(consts::EINVAL)
    );
}

#[test]
fn a_stream_without_end_does_not_grow_the_server_without_limit() {
    let mut host = Host::start(1);
    let mut client = host.client();
    client.set_mig_state(MigState::Resuming).expect("it resumes");
    let piece = vec![0x55; 1 << 20];
    let refused = (0..256).any(|_| client.mig_data_write(&piece).is_err());
    assert!(refused, "a quarter of a GiB of noise was taken");
    drop(client);
    host.assert_serves();
}
