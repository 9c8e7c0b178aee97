//! A guest driver that means ill: rings and generators that point anywhere, descriptors that change while they are read.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{BUFFER, Host, dma, eventually, generator};
use vfio_user_check::driver::{Descriptor, Dma, DriverError, Generator, Operation, Ring, regs};
use vfio_user_check::vmm::Vm;
use zerocopy::IntoBytes;

const RING: u64 = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

fn with_ring(host: &Host) -> (Vm, Ring) {
    let mut vm = host.vm(&common::memory());
    let ring = Ring::new(vm.memory(), RING, 16).expect("a ring");
    dma(&mut vm).enable_ring(&ring).expect("the ring is enabled");
    (vm, ring)
}

fn status_of(vm: &mut Vm, ring: &mut Ring, descriptor: &Descriptor) -> u32 {
    ring.push(descriptor).expect("a push").expect("there is room");
    dma(vm).ring_doorbell(ring).expect("the doorbell");
    ring.wait(TIMEOUT).expect("a poll").expect("a completion").status
}

#[test]
fn descriptors_that_leave_guest_memory_complete_with_an_error() {
    let host = Host::start(1);
    let (mut vm, mut ring) = with_ring(&host);
    let end = common::MEMORY;
    let ranges = [
        (end, 8),
        (end - 4096, 8192),
        (u64::MAX - 7, 8),
        (u64::MAX - 7, 16),
        (0xa_0000, 8),
        (0x9_fff8, 16),
        (1 << 52, 8),
        (1 << 63, 4096),
    ];
    for (iova, length) in ranges {
        let inside = BUFFER;
        for operation in [
            Operation::Fill {
                pattern: 1,
                dest: iova,
                length,
            },
            Operation::Copy {
                source: iova,
                dest: inside,
                length,
            },
            Operation::Copy {
                source: inside,
                dest: iova,
                length,
            },
            Operation::Crc { source: iova, length },
        ] {
            let status = status_of(&mut vm, &mut ring, &Descriptor::new(operation, 1));
            assert_eq!(status, regs::ERROR_ADDRESS, "{operation:x?}");
        }
    }
    let right = Descriptor::new(Operation::Nop, 2);
    assert_eq!(
        status_of(&mut vm, &mut ring, &right),
        regs::ERROR_NONE,
        "the ring goes on"
    );
}

#[test]
fn descriptors_that_make_no_sense_complete_with_an_error() {
    let host = Host::start(1);
    let (mut vm, mut ring) = with_ring(&host);
    let fill = Operation::Fill {
        pattern: 1,
        dest: BUFFER,
        length: 64,
    };
    let good = Descriptor::new(fill, 1);
    let bad = [
        Descriptor { opcode: 4, ..good },
        Descriptor {
            opcode: u32::MAX,
            ..good
        },
        Descriptor { flags: 2, ..good },
        Descriptor {
            flags: u32::MAX,
            ..good
        },
        Descriptor {
            length: (1 << 30) + 1,
            ..good
        },
        Descriptor {
            length: u64::MAX,
            ..good
        },
        Descriptor {
            reserved: [0, 0, 1],
            ..good
        },
    ];
    for descriptor in bad {
        assert_eq!(
            status_of(&mut vm, &mut ring, &descriptor),
            regs::ERROR_DESCRIPTOR,
            "{descriptor:x?}"
        );
    }
    assert_eq!(status_of(&mut vm, &mut ring, &good), regs::ERROR_NONE);
}

#[test]
fn rings_that_cannot_be_are_an_error_of_the_ring() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let configurations = [
        (RING, RING + 0x1000, 0),
        (RING, RING + 0x1000, 1),
        (RING, RING + 0x1000, 3),
        (RING, RING + 0x1000, 8192),
        (RING, RING + 0x1000, u32::MAX),
        (RING + 8, RING + 0x1000, 16),
        (RING, RING + 0x1008, 16),
        (u64::MAX - 63, RING, 16),
        (RING, u64::MAX - 31, 16),
    ];
    for (descriptors, completions, entries) in configurations {
        let mut driver = dma(&mut vm);
        driver.write64(regs::DESC_BASE, descriptors).expect("a write");
        driver.write64(regs::COMP_BASE, completions).expect("a write");
        driver.write(regs::RING_ENTRIES, entries).expect("a write");
        driver
            .write(regs::CONTROL, regs::CONTROL_RING_ENABLE)
            .expect("a write");
        driver.write(regs::RING_TAIL, 1).expect("a write");
        let what = format!("{descriptors:#x} {completions:#x} {entries}");
        eventually(&what, || {
            dma(&mut vm).read(regs::STATUS).expect("a read") & regs::STATUS_RING_ERROR != 0
        });
        let mut driver = dma(&mut vm);
        assert!(
            [regs::ERROR_RING, regs::ERROR_ADDRESS].contains(&driver.read(regs::ERROR).expect("a read")),
            "{what}"
        );
        driver.device().client().device_reset().expect("a reset");
        driver.device().enable().expect("it can be enabled");
        driver.healthy().expect("a reset clears it");
    }
}

#[test]
fn a_doorbell_beyond_the_ring_is_an_error_of_the_ring() {
    let host = Host::start(1);
    for tail in [17, 1 << 20, u32::MAX] {
        let (mut vm, _ring) = with_ring(&host);
        dma(&mut vm).write(regs::RING_TAIL, tail).expect("a write");
        eventually("the device says so", || {
            dma(&mut vm).read(regs::STATUS).expect("a read") & regs::STATUS_RING_ERROR != 0
        });
        assert_eq!(
            dma(&mut vm).read(regs::ERROR).expect("a read"),
            regs::ERROR_DOORBELL,
            "tail {tail}"
        );
    }
}

#[test]
fn a_mapped_doorbell_beyond_the_ring_is_an_error_too() {
    let host = Host::start(1);
    let (mut vm, _ring) = with_ring(&host);
    let doorbells = dma(&mut vm).map_doorbells().expect("the doorbells can be mapped");
    doorbells.store(regs::RING_TAIL, u32::MAX).expect("a store");
    eventually("the device says so", || {
        dma(&mut vm).read(regs::STATUS).expect("a read") & regs::STATUS_RING_ERROR != 0
    });
}

#[test]
fn generators_that_cannot_be_are_an_error_of_the_generator() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    let good = generator(64);
    let bad = [
        Generator {
            base: good.base + 8,
            ..good
        },
        Generator {
            pages: u64::MAX,
            ..good
        },
        Generator {
            pages: 1 << 52,
            ..good
        },
        Generator {
            base: u64::MAX - 4095,
            ..good
        },
        Generator {
            base: common::MEMORY,
            ..good
        },
        Generator {
            base: common::MEMORY - 4096,
            ..good
        },
    ];
    for generator in bad {
        let started = dma(&mut vm).start_generator(&generator);
        if started.is_ok() {
            eventually(&format!("{generator:x?} is an error"), || {
                dma(&mut vm).healthy().is_err()
            });
        }
        let Err(DriverError::Device { code, .. }) = dma(&mut vm).healthy() else {
            panic!("{generator:x?} is no error");
        };
        assert!(
            [regs::ERROR_GENERATOR, regs::ERROR_ADDRESS].contains(&code),
            "{generator:x?}: error {code}"
        );
        vm.devices()[0].client().device_reset().expect("a reset");
        vm.devices()[0].enable().expect("it can be enabled");
    }
    dma(&mut vm).start_generator(&good).expect("the right one works");
}

#[test]
fn a_device_that_may_not_master_the_bus_does_not() {
    let host = Host::start(1);
    let mut vm = host.vm(&common::memory());
    vm.devices()[0].config().disable_bus_master().expect("a write");
    let _ = dma(&mut vm).start_generator(&generator(64));
    eventually("the device says so", || dma(&mut vm).healthy().is_err());
    assert_eq!(
        dma(&mut vm).read(regs::ERROR).expect("a read"),
        regs::ERROR_BUS_MASTER
    );
    assert_eq!(
        dma(&mut vm).positions().expect("positions").iter().sum::<u64>(),
        0
    );
}

#[test]
fn registers_are_accessed_with_their_own_width() {
    let host = Host::start(1);
    let mut client = host.client();
    for (offset, width) in [
        (0, 1),
        (0, 2),
        (0, 8),
        (1, 4),
        (2, 2),
        (0x20, 1),
        (0x24, 8),
        (0x21, 4),
        (0x200, 2),
        (0x1000, 8),
        (0x1002, 4),
    ] {
        let mut data = vec![0; width];
        assert!(
            client.region_read(regs::BAR, offset, &mut data).is_err(),
            "a read of {width} bytes at {offset:#x}"
        );
    }
    let mut half = [0; 4];
    client
        .region_read(regs::BAR, 0x24, &mut half)
        .expect("a 64-bit register as two halves");
}

#[test]
fn descriptors_that_change_while_they_are_read_are_survived() {
    let mut host = Host::start(1);
    let (mut vm, mut ring) = with_ring(&host);
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = {
        let (memory, stop) = (Arc::clone(vm.memory()), Arc::clone(&stop));
        let base = ring.descriptors();
        std::thread::spawn(move || {
            let mut noise = common::raw::Noise(3);
            while !stop.load(Ordering::Relaxed) {
                let descriptor = Descriptor {
                    opcode: (noise.next() % 5) as u32,
                    flags: (noise.next() % 2) as u32,
                    source: noise.next() % (2 * common::MEMORY),
                    dest: BUFFER + noise.next() % (32 << 20),
                    length: noise.next() % 8192,
                    cookie: noise.next(),
                    reserved: [0; 3],
                };
                memory
                    .write(base + noise.next() % 16 * 64, descriptor.as_bytes())
                    .expect("a write");
            }
        })
    };
    let mut done = 0;
    for _ in 0..200 {
        ring.push(&Descriptor::new(Operation::Nop, 0))
            .expect("a push")
            .expect("there is room");
        dma(&mut vm).ring_doorbell(&ring).expect("the doorbell");
        done += u32::from(ring.wait(TIMEOUT).expect("a poll").is_some());
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().expect("the scribbler ends");
    assert_eq!(done, 200, "every descriptor completes, whatever it turned into");
    drop(vm);
    host.assert_serves();
}

#[test]
fn a_descriptor_that_writes_over_its_own_ring_is_survived() {
    let mut host = Host::start(1);
    let (mut vm, mut ring) = with_ring(&host);
    for (dest, length) in [
        (RING, 4096),
        (ring.completions() - 4096, 8192),
        (RING - 4096, 1 << 20),
    ] {
        let operation = Operation::Fill {
            pattern: u64::MAX,
            dest,
            length,
        };
        ring.push(&Descriptor::new(operation, 1)).expect("a push");
        dma(&mut vm).ring_doorbell(&ring).expect("the doorbell");
        std::thread::sleep(Duration::from_millis(20));
        vm.devices()[0].client().device_reset().expect("a reset");
        vm.devices()[0].enable().expect("it can be enabled");
        ring = Ring::new(vm.memory(), RING, 16).expect("a ring");
        dma(&mut vm).enable_ring(&ring).expect("the ring is enabled");
    }
    drop(vm);
    host.assert_serves();
}

#[test]
fn completions_are_not_written_where_there_is_no_room() {
    let host = Host::start(1);
    let (mut vm, mut ring) = with_ring(&host);
    for cookie in 0..16 {
        ring.push(&Descriptor::new(Operation::Nop, cookie))
            .expect("a push")
            .expect("there is room");
    }
    let mut driver: Dma<'_> = dma(&mut vm);
    driver.write(regs::RING_TAIL, 16).expect("the doorbell");
    eventually("the ring is full", || {
        dma(&mut vm).read(regs::COMP_TAIL).expect("a read") == 16
    });
    // The driver has consumed none: the next descriptor must wait for it.
    dma(&mut vm).write(regs::RING_TAIL, 17).expect("the doorbell");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(dma(&mut vm).read(regs::COMP_TAIL).expect("a read"), 16);
    for cookie in 0..16 {
        assert_eq!(
            ring.poll().expect("a poll").expect("a completion").cookie < 16,
            cookie < 16
        );
    }
    dma(&mut vm).write(regs::COMP_HEAD, 16).expect("the doorbell");
    eventually("the next goes on", || {
        dma(&mut vm).read(regs::COMP_TAIL).expect("a read") == 17
    });
}
