//! Clients that come twice, from elsewhere, or leave in the middle of anything; and several VMs in one process.

mod common;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Host, dma, generator, pagetrail};
use vfio_user_check::client::{Client, Error};
use vfio_user_check::driver::{DriverError, regs};
use vfio_user_check::vmm::{Backing, GuestMemory, Vm, memory_file};
use vfio_user_check::wire::{DmaMap, MigState, consts};

#[test]
fn a_second_client_is_told_that_the_device_is_busy_and_the_first_goes_on() {
    let host = Host::start(1);
    let mut first = host.client();
    for _ in 0..5 {
        match Client::connect(host.socket()) {
            Err(Error::Server { errno, .. }) => assert_eq!(errno, consts::EBUSY),
            Err(error) => panic!("it must say that it is busy: {error}"),
            Ok(_) => panic!("two clients have one device"),
        }
        first.device_info().expect("the first goes on");
    }
    drop(first);
    host.client().device_info().expect("the next is served");
}

#[test]
fn another_process_cannot_join_a_vm() {
    let (host, other) = (Host::start(2), Host::start(1));
    let mine = Client::connect(host.socket()).expect("the first connects");
    let child = |socket: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-user-check"));
        command.args(["migrate", "--memory=8M", "--passes=1", "--drive=none", "--quiet"]);
        command
            .arg(format!("--source={}", socket.display()))
            .arg(format!("--dest={}", other.socket().display()));
        command.output().expect("it runs")
    };
    let refused = child(&host.sockets()[1]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    drop(mine);
    std::thread::sleep(Duration::from_millis(100));
    let taken = child(&host.sockets()[1]);
    assert!(
        taken.status.success(),
        "{}",
        String::from_utf8_lossy(&taken.stderr)
    );
}

#[test]
fn a_client_that_leaves_in_any_state_leaves_a_device_after_reset() {
    let mut host = Host::start(1);
    for state in MigState::ALL
        .into_iter()
        .filter(|state| *state != MigState::Error)
    {
        let mut vm = host.vm(&common::memory());
        vm.devices()[0]
            .client()
            .logging_start(4096, &[])
            .expect("logging starts");
        dma(&mut vm).start_generator(&generator(64)).expect("it starts");
        vm.devices()[0]
            .client()
            .set_mig_state(state)
            .expect("it gets there");
        drop(vm);
        let mut client = host.client();
        assert_eq!(
            client.mig_state().expect("a state"),
            MigState::Running,
            "after {state}"
        );
        client
            .logging_start(4096, &[])
            .expect("logging has ended with the connection");
        assert!(
            client.dma_unmap(0, 0xa_0000).is_err(),
            "mappings end with the connection"
        );
        drop(client);
        host.assert_serves();
    }
}

#[test]
fn clients_that_come_and_go_at_once_are_survived() {
    let mut host = Host::start(1);
    for _ in 0..200 {
        drop(std::os::unix::net::UnixStream::connect(host.socket()));
    }
    for _ in 0..50 {
        let client = host.client();
        client_leaves_rudely(client);
    }
    host.assert_serves();
}

fn client_leaves_rudely(mut client: Client) {
    // A request under way, its reply not read.
    let _ = client.post(vfio_user_check::wire::Command::DeviceReset, &[], &[]);
    client.connection().shut_down();
}

/// A process with two VMs of one device each.
fn two_vms() -> Host {
    let folder = tempfile::tempdir().expect("a folder");
    let sockets: Vec<PathBuf> = ["a", "b"].iter().map(|name| folder.path().join(name)).collect();
    let config = folder.path().join("host.toml");
    let section = |name: &str| {
        let path = folder.path().join(name);
        format!(
            "[[vm]]\nname = \"{name}\"\n[[vm.device]]\nkind = \"dma\"\nsocket-path = \"{}\"\nworkers = 1\n",
            path.display()
        )
    };
    let text = section("a") + &section("b");
    std::fs::write(&config, text).expect("the configuration can be written");
    let mut command = Command::new(pagetrail());
    command.arg("serve").arg(&config);
    Host::run(command, sockets, folder)
}

#[test]
fn a_vm_that_maps_all_it_can_leaves_the_other_one_its_part() {
    const TERA: u64 = 1 << 40;
    let host = two_vms();
    let file = memory_file(TERA, Backing::Sealed).expect("a file that costs nothing");
    let clients = host.sockets().iter().map(|socket| Client::connect(socket));
    let [mut greedy, mut other] = clients
        .collect::<Result<Vec<_>, _>>()
        .expect("both are served")
        .try_into()
        .unwrap_or_else(|_| panic!("two sockets"));
    let map = |client: &mut Client, number: u64| {
        let map = DmaMap {
            flags: consts::DMA_MAP_READ,
            address: number * TERA,
            size: TERA,
            ..DmaMap::default()
        };
        client.dma_map(map, Some(file.as_fd()))
    };
    let refused = (0..100).find_map(|number| map(&mut greedy, number).err());
    assert_eq!(refused.expect("an end").errno(), Some(consts::ENOSPC));
    for number in 0..16 {
        map(&mut other, number).expect("a quarter of everything is set apart for it");
    }
}

#[test]
fn a_vm_s_memory_is_not_reached_by_another_vm_in_the_same_process() {
    let host = two_vms();
    let sockets = host.sockets();
    let memory = GuestMemory::with_regions(&[(16 << 20, 1 << 20)], Backing::Sealed).expect("memory");
    let elsewhere = GuestMemory::with_regions(&[(64 << 20, 1 << 20)], Backing::Sealed).expect("memory");
    let _a = Vm::connect(&sockets[..1], memory).expect("VM a");
    let mut b = Vm::connect(&sockets[1..], elsewhere).expect("VM b");
    b.enable_devices().expect("VM b");
    let mut driver = dma(&mut b);
    let answer = driver
        .start_generator(&generator(64))
        .and_then(|()| driver.await_progress(1, Duration::from_secs(2)));
    assert!(
        matches!(
            answer,
            Err(DriverError::Device {
                code: regs::ERROR_ADDRESS,
                ..
            })
        ),
        "{answer:?}"
    );
}
