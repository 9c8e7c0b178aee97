//! Guest memory that is not what it should be: bad maps, wrong file descriptors, files that shrink, memory that goes away while
//! a device writes to it.

mod common;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Host, dma, generator};
use vfio_user_check::client::{Client, Error};
use vfio_user_check::driver::{DriverError, regs};
use vfio_user_check::vmm::{Backing, GuestMemory, Vm, memory_file};
use vfio_user_check::wire::{DmaMap, consts};

const MIB: u64 = 1 << 20;
const READ_WRITE: u32 = consts::DMA_MAP_READ | consts::DMA_MAP_WRITE;

fn map(address: u64, size: u64, offset: u64) -> DmaMap {
    DmaMap {
        argsz: 32,
        flags: READ_WRITE,
        offset,
        address,
        size,
    }
}

fn refused(client: &mut Client, map: DmaMap, fd: Option<BorrowedFd<'_>>, errno: u32, why: &str) {
    match client.dma_map(map, fd) {
        Err(Error::Server { errno: got, .. }) => assert_eq!(got, errno, "{why}"),
        Ok(()) => panic!("{why}: the map was taken"),
        Err(error) => panic!("{why}: {error}"),
    }
}

#[test]
fn maps_that_cannot_be_are_refused() {
    let mut host = Host::start(1);
    let mut client = host.client();
    let file = memory_file(MIB, Backing::Sealed).expect("a memfd");
    let fd = Some(file.as_fd());
    let einval = consts::EINVAL;
    refused(&mut client, map(0, 0, 0), fd, einval, "nothing");
    refused(
        &mut client,
        map(100, MIB, 0),
        fd,
        einval,
        "an address between pages",
    );
    refused(
        &mut client,
        map(0, MIB - 1, 0),
        fd,
        einval,
        "a size between pages",
    );
    refused(
        &mut client,
        map(0, 4096, 100),
        fd,
        einval,
        "an offset between pages",
    );
    refused(
        &mut client,
        map(0, 2 * MIB, 0),
        fd,
        einval,
        "more than the file has",
    );
    refused(
        &mut client,
        map(0, MIB, 4096),
        fd,
        einval,
        "past the end of the file",
    );
    refused(
        &mut client,
        map(0, MIB, u64::MAX - 4095),
        fd,
        einval,
        "an offset that wraps",
    );
    refused(&mut client, map(1 << 52, MIB, 0), fd, einval, "beyond 52 bits");
    refused(
        &mut client,
        map(u64::MAX - 4095, 8192, 0),
        fd,
        einval,
        "an address that wraps",
    );
    client.dma_map(map(MIB, MIB, 0), fd).expect("the right map");
    refused(
        &mut client,
        map(MIB, MIB, 0),
        fd,
        consts::EEXIST,
        "the same again",
    );
    refused(
        &mut client,
        map(2 * MIB - 4096, 8192, 0),
        fd,
        consts::EEXIST,
        "an overlap",
    );
    drop(client);
    host.assert_serves();
}

#[test]
fn unmaps_of_what_is_not_mapped_are_refused() {
    let host = Host::start(1);
    let mut client = host.client();
    let file = memory_file(MIB, Backing::Sealed).expect("a memfd");
    client
        .dma_map(map(MIB, MIB, 0), Some(file.as_fd()))
        .expect("a map");
    for (address, size) in [
        (0, MIB),
        (MIB, MIB / 2),
        (MIB + 4096, MIB - 4096),
        (MIB, 2 * MIB),
        (MIB, 0),
    ] {
        let error = client.dma_unmap(address, size).expect_err("it is not a mapping");
        assert_eq!(error.errno(), Some(consts::ENOENT), "{address:#x} + {size:#x}");
    }
    client.dma_unmap(MIB, MIB).expect("the mapping itself");
    client.dma_unmap_all().expect("all of none");
    client
        .dma_map(map(MIB, MIB, 0), Some(file.as_fd()))
        .expect("a map");
    client.dma_unmap_all().expect("all");
    assert_eq!(
        client.dma_unmap(MIB, MIB).expect_err("it is gone").errno(),
        Some(consts::ENOENT)
    );
}

#[test]
fn file_descriptors_that_are_not_memory_are_refused() {
    let mut host = Host::start(1);
    let mut client = host.client();
    let folder = tempfile::tempdir_in("/var/tmp")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    let on_disk = File::create(folder.path().join("file")).expect("a file");
    let directory = File::open(folder.path()).expect("a folder");
    let null = File::open("/dev/null").expect("a device");
    let (pipe, _peer) = std::os::unix::net::UnixStream::pair().expect("a pair");
    for (name, fd) in [
        ("a directory", directory.as_fd()),
        ("a device", null.as_fd()),
        ("a socket", pipe.as_fd()),
        ("an empty file", on_disk.as_fd()),
    ] {
        assert!(client.dma_map(map(0, 4096, 0), Some(fd)).is_err(), "{name}");
    }
    drop(client);
    host.assert_serves();
}

#[test]
fn memory_without_a_file_descriptor_is_taken_and_the_driver_learns_that_it_cannot_be_reached() {
    let mut host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let region = vm.memory().find(16 << 20, 1).expect("a region");
    let client = vm.devices()[0].client();
    client.dma_unmap(region.iova(), region.size()).expect("an unmap");
    client
        .dma_map(region.dma_map(), None)
        .expect("QEMU without share=on does this");
    expect_generator_error(&mut vm, regs::ERROR_ADDRESS);
    // The driver may learn of it first.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !host.server().log().contains("share=on") {
        let log = host.server().log();
        assert!(
            Instant::now() < deadline,
            "the log does not say what to add:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn memory_that_may_not_be_written_is_not_written() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let region = vm.memory().find(16 << 20, 1).expect("a region");
    let client = vm.devices()[0].client();
    client.dma_unmap(region.iova(), region.size()).expect("an unmap");
    let read_only = DmaMap {
        flags: consts::DMA_MAP_READ,
        ..region.dma_map()
    };
    client
        .dma_map(read_only, Some(region.file().as_fd()))
        .expect("a map");
    expect_generator_error(&mut vm, regs::ERROR_ADDRESS);
}

fn expect_generator_error(vm: &mut Vm, code: u32) {
    let mut driver = dma(vm);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut answer = driver.start_generator(&generator(64));
    while answer.is_ok() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        answer = driver.healthy();
    }
    match answer {
        Err(DriverError::Device { code: got, .. }) => assert_eq!(got, code),
        other => panic!("the device does not say that it cannot write: {other:?}"),
    }
}

#[test]
fn memory_that_goes_away_under_a_writing_device_is_not_written_afterwards() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let region = vm.memory().find(16 << 20, 1).expect("a region");
    let window = generator(256);
    for round in 0..20 {
        dma(&mut vm).start_generator(&window).expect("it starts");
        std::thread::sleep(Duration::from_millis(round % 5));
        let client = vm.devices()[0].client();
        client.dma_unmap(region.iova(), region.size()).expect("an unmap");
        let mut before = vec![0; window.size() as usize];
        region.read(window.base, &mut before);
        std::thread::sleep(Duration::from_millis(5));
        let mut after = vec![0; window.size() as usize];
        region.read(window.base, &mut after);
        assert!(
            before == after,
            "round {round}: the device wrote after the unmap was answered"
        );
        region.map_into(vm.devices()[0].client()).expect("a map");
        vm.devices()[0].client().device_reset().expect("a reset");
        vm.devices()[0].enable().expect("it can be enabled");
    }
}

#[test]
fn a_file_that_shrinks_under_a_writing_device_costs_its_client_alone() {
    let mut host = Host::start(1);
    for _ in 0..3 {
        let file = Arc::new(memory_file(common::MEMORY, Backing::Unsealed).expect("a memfd"));
        let memory = Arc::new(GuestMemory::default());
        let region =
            vfio_user_check::vmm::Region::new(0, common::MEMORY, Arc::clone(&file), 0).expect("a region");
        memory.add(region);
        let mut vm = host.vm(&memory);
        dma(&mut vm).start_generator(&generator(1024)).expect("it starts");
        dma(&mut vm)
            .await_progress(100, Duration::from_secs(5))
            .expect("it writes");
        file.set_len(1 << 20).expect("it shrinks");
        std::thread::sleep(Duration::from_millis(100));
        drop(vm);
        host.assert_serves();
    }
}

#[test]
fn maps_unmaps_and_resets_in_any_order_while_a_device_writes_are_survived() {
    let mut host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let mut noise = common::raw::Noise(77);
    let regions = vm.memory().regions();
    let mut mapped = vec![true; regions.len()];
    for _ in 0..300 {
        let which = (noise.next() % regions.len() as u64) as usize;
        let client = vm.devices()[0].client();
        match noise.next() % 4 {
            0 if mapped[which] => {
                client
                    .dma_unmap(regions[which].iova(), regions[which].size())
                    .expect("an unmap");
                mapped[which] = false;
            }
            0 | 1 if !mapped[which] => {
                regions[which].map_into(client).expect("a map");
                mapped[which] = true;
            }
            2 => {
                client.device_reset().expect("a reset");
                vm.devices()[0].enable().expect("it can be enabled");
            }
            // Memory may be missing: then it says so, and that is all.
            _ => drop(dma(&mut vm).start_generator(&generator(64))),
        }
    }
    drop(vm);
    host.assert_serves();
}
