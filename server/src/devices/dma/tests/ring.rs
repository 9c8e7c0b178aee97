//! The descriptor ring keeps its promises to a driver, and survives one that keeps none.

use super::rig::{
    COMP_BASE, DATA, DESC_BASE, Driver, MEMORY, RING, Rig, copy, crc, fill, noise, nop, notifying, reg,
};
use crate::devices::dma::layout::Descriptor;
use crate::guest::BusMaster;

const RING_BUSY: u32 = 1;
const RING_ERROR: u32 = 1 << 2;

#[test]
fn copy_fill_and_crc_do_what_they_say() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 8);
    for len in [0, 1, 7, 8, 4096, 65_535, 65_536, 65_537, 300_001_u64] {
        let source = noise(len as usize, len);
        let dest = DATA + 0x10_0003;
        rig.memory.write(DATA, &source);

        let done = driver.run(&rig, &copy(DATA, dest, len));
        assert_eq!((done.status, done.result, done.cookie), (0, len, 0xc0));
        assert_eq!(rig.bytes(dest, len), source);

        let done = driver.run(&rig, &crc(DATA, len));
        assert_eq!((done.status, done.result), (0, crc32c::crc32c(&source).into()));

        let pattern = 0x0807_0605_0403_0201_u64;
        let done = driver.run(&rig, &fill(pattern, dest, len));
        assert_eq!((done.status, done.result), (0, len));
        let expected: Vec<u8> = pattern
            .to_le_bytes()
            .into_iter()
            .cycle()
            .take(len as usize)
            .collect();
        assert_eq!(rig.bytes(dest, len), expected);
        assert_eq!(rig.bytes(dest + len, 1), [0], "nothing beyond the end");
    }
}

#[test]
fn every_bad_descriptor_completes_with_its_error_and_harms_nothing() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 4);
    let good = copy(DATA, DATA + 0x1000, 64);
    let reserved = {
        let mut bytes = [0; 24];
        bytes[23] = 1;
        bytes
    };
    let bad = [
        (
            Descriptor {
                opcode: 4.into(),
                ..good
            },
            1,
        ),
        (
            Descriptor {
                opcode: u32::MAX.into(),
                ..good
            },
            1,
        ),
        (
            Descriptor {
                flags: 2.into(),
                ..good
            },
            1,
        ),
        (Descriptor { reserved, ..good }, 1),
        (copy(DATA, DATA, (1 << 30) + 1), 1),
        (copy(DATA, DATA, u64::MAX), 1),
        (
            Descriptor {
                length: u64::MAX.into(),
                ..nop(1)
            },
            1,
        ),
        (copy(MEMORY - 63, DATA, 64), 2),
        (copy(DATA, MEMORY - 63, 64), 2),
        (copy(u64::MAX - 10, DATA, 64), 2),
        (fill(0, u64::MAX - 63, 64), 2),
        (fill(0, u64::MAX, 1 << 30), 2),
        (crc(MEMORY, 1), 2),
    ];
    for (descriptor, status) in bad {
        let done = driver.run(&rig, &descriptor);
        assert_eq!((done.status, done.result), (status, 0), "{descriptor:?}");
        assert_eq!(driver.run(&rig, &good).status, 0, "the next one is served");
    }
    assert_eq!(
        rig.read32(reg::ERROR),
        0,
        "a descriptor's error is the descriptor's"
    );
}

#[test]
fn a_range_that_is_not_mapped_whole_is_refused_before_its_first_byte() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 4);
    let dest = MEMORY - 0x10_0000;
    let done = driver.run(&rig, &fill(u64::MAX, dest, 0x10_0001));
    assert_eq!((done.status, done.result), (2, 0));
    assert_eq!(rig.bytes(dest, 16), [0; 16]);
}

#[test]
fn the_rings_wrap_and_every_completion_is_in_its_place() {
    let rig = Rig::new(3);
    let mut driver = Driver::enable(&rig, 4);
    let mut seen = [false; 101];
    for cookie in 0..101_u32 {
        driver.push(&rig, &nop(cookie.into()));
        driver.ring(&rig);
        if driver.outstanding() == 4 || cookie == 100 {
            while driver.outstanding() > 0 {
                let done = driver.wait(&rig);
                assert_eq!(done.cookie, u64::from(done.index));
                assert!(!std::mem::replace(&mut seen[done.index as usize], true));
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    assert_eq!(
        (rig.read32(reg::RING_HEAD), rig.read32(reg::COMP_TAIL)),
        (101, 101)
    );
    assert_eq!(rig.status() & (RING_BUSY | RING_ERROR), 0);
}

#[test]
fn a_store_into_the_mapped_doorbell_is_seen() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 2);
    for cookie in 0..20 {
        driver.push(&rig, &nop(cookie));
        rig.store_mapped(reg::RING_TAIL, driver.published);
        assert_eq!(driver.wait(&rig).cookie, cookie);
    }
}

#[test]
fn no_descriptor_starts_without_a_free_completion_slot() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 4);
    for cookie in 0..4 {
        driver.push(&rig, &nop(cookie));
    }
    driver.ring(&rig);
    rig.wait_until("four completions", |rig| rig.read32(reg::COMP_TAIL) == 4);
    for cookie in 4..8 {
        driver.push(&rig, &nop(cookie));
    }
    driver.ring(&rig);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(rig.read32(reg::RING_HEAD), 4, "the driver has consumed nothing");
    let first: Vec<u64> = (0..4).map(|_| driver.wait(&rig).cookie).collect();
    assert!(first.iter().all(|cookie| *cookie < 4));
    for _ in 0..4 {
        assert!(driver.wait(&rig).cookie >= 4);
    }
}

#[test]
fn a_bad_doorbell_stops_the_ring_until_it_is_enabled_anew() {
    for (doorbell, value) in [
        (reg::RING_TAIL, 5),
        (reg::RING_TAIL, u32::MAX),
        (reg::COMP_HEAD, 1),
        (reg::COMP_HEAD, 0x8000_0000),
    ] {
        let rig = Rig::new(1);
        rig.write32(reg::INT_ENABLE, 0xf);
        Driver::enable(&rig, 4);
        rig.store_mapped(doorbell, value);
        rig.wait_until("the error", |rig| rig.status() & RING_ERROR != 0);
        rig.wait_until("its cause", |rig| rig.read32(reg::INT_CAUSE) == 1 << 2);
        assert_eq!((rig.read32(reg::ERROR), rig.irq.pending()), (3, 1 << 2));

        rig.clear_control(RING);
        assert_eq!(rig.status(), 0);
        let mut driver = Driver::enable(&rig, 4);
        assert_eq!(driver.run(&rig, &nop(9)).cookie, 9);
        assert_eq!(rig.read32(reg::ERROR), 3, "the first error stays until the reset");
    }
}

#[test]
fn a_bad_ring_is_refused_when_it_is_enabled() {
    let ring_at_the_end = u64::MAX - 63;
    for (desc_base, comp_base, entries) in [
        (DESC_BASE + 32, COMP_BASE, 4),
        (DESC_BASE, COMP_BASE + 16, 4),
        (DESC_BASE, COMP_BASE, 0),
        (DESC_BASE, COMP_BASE, 1),
        (DESC_BASE, COMP_BASE, 3),
        (DESC_BASE, COMP_BASE, 8192),
        (DESC_BASE, COMP_BASE, u32::MAX),
        (ring_at_the_end, COMP_BASE, 2),
        (DESC_BASE, u64::MAX - 31, 2),
    ] {
        let rig = Rig::new(1);
        rig.write64(reg::DESC_BASE, desc_base);
        rig.write64(reg::COMP_BASE, comp_base);
        rig.write32(reg::RING_ENTRIES, entries);
        rig.set_control(RING);
        assert_eq!(
            rig.status(),
            RING_ERROR,
            "{desc_base:#x} {comp_base:#x} {entries}"
        );
        assert_eq!((rig.read32(reg::ERROR), rig.read32(reg::INT_CAUSE)), (4, 1 << 2));
    }
}

#[test]
fn rings_outside_of_memory_are_an_error_of_the_ring() {
    for (desc_base, comp_base) in [(MEMORY, COMP_BASE), (DESC_BASE, MEMORY)] {
        let rig = Rig::new(1);
        let driver = Driver::enable(&rig, 4);
        rig.clear_control(RING);
        rig.write64(reg::DESC_BASE, desc_base);
        rig.write64(reg::COMP_BASE, comp_base);
        rig.set_control(RING);
        rig.write32(reg::RING_TAIL, driver.published + 1);
        rig.wait_until("the error", |rig| rig.status() == RING_ERROR);
        rig.wait_until("its cause", |rig| rig.read32(reg::INT_CAUSE) == 1 << 2);
        assert_eq!(rig.read32(reg::ERROR), 2);
    }
}

#[test]
fn without_bus_mastering_the_ring_fails_and_nothing_is_touched() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 4);
    rig.memory.space().set_bus_master(BusMaster::Off);
    driver.push(&rig, &fill(u64::MAX, DATA, 8));
    driver.ring(&rig);
    rig.wait_until("the error", |rig| rig.status() == RING_ERROR);
    rig.wait_until("its cause", |rig| rig.read32(reg::INT_CAUSE) == 1 << 2);
    assert_eq!(rig.read32(reg::ERROR), 6);
    assert_eq!(rig.bytes(DATA, 8), [0; 8]);
}

#[test]
fn configuration_is_deaf_while_enabled() {
    let rig = Rig::new(1);
    Driver::enable(&rig, 4);
    rig.start_generator(16, 1, 0, 1);
    for register in [
        reg::DESC_BASE,
        reg::COMP_BASE,
        reg::GEN_BASE,
        reg::GEN_PAGES,
        reg::GEN_SEED,
    ] {
        let before = rig.read64(register);
        rig.write64(register, !before);
        assert_eq!(rig.read64(register), before);
    }
    let entries = rig.read32(reg::RING_ENTRIES);
    rig.write32(reg::RING_ENTRIES, 8);
    assert_eq!(rig.read32(reg::RING_ENTRIES), entries);
}

#[test]
fn a_cause_signals_when_it_becomes_pending_and_stays_until_acknowledged() {
    let rig = Rig::new(1);
    let mut driver = Driver::enable(&rig, 4);
    driver.run(&rig, &nop(1));
    assert_eq!(rig.read32(reg::INT_CAUSE), 0, "the descriptor did not ask for it");

    driver.run(&rig, &notifying(nop(2)));
    rig.wait_until("the cause", |rig| rig.read32(reg::INT_CAUSE) == 1);
    assert_eq!(rig.irq.pending(), 0, "not enabled");
    rig.write32(reg::INT_ENABLE, 1);
    assert_eq!(rig.irq.pending(), 1);
    rig.write32(reg::INT_CAUSE, 0xe);
    assert_eq!(rig.irq.pending(), 1, "another cause was acknowledged");
    rig.write32(reg::INT_CAUSE, 1);
    assert_eq!((rig.irq.pending(), rig.read32(reg::INT_CAUSE)), (0, 0));
}

#[test]
fn a_completion_is_whole_before_its_cause_is_raised() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 2);
    rig.write32(reg::INT_ENABLE, 1);
    for cookie in 0..500 {
        driver.push(&rig, &notifying(nop(cookie)));
        driver.ring(&rig);
        while rig.irq.pending() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(driver.poll(&rig).map(|done| done.cookie), Some(cookie));
        rig.write32(reg::INT_CAUSE, 1);
    }
}
