//! Stopping, resetting, and what a device may not do meanwhile.

use std::time::{Duration, Instant};

use super::rig::{DATA, Driver, GENERATOR, MEMORY, RING, Rig, copy, fill, nop, notifying, reg};
use crate::guest::testing::Guest;

#[test]
fn a_quiescent_device_touches_nothing() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 8);
    rig.start_generator(100, 3, 0, 0);
    for _ in 0..8 {
        driver.push(&rig, &notifying(fill(0x55, DATA + 0x20_0000, 0x20_0000)));
    }
    driver.ring(&rig);
    rig.wait_until("some work", |rig| {
        rig.read32(reg::RING_HEAD) > 0 && rig.positions(2)[0] > 5
    });
    rig.quiesce();
    let (memory, state) = (rig.bytes(0, MEMORY), rig.device.save().unwrap());
    std::thread::sleep(Duration::from_millis(30));
    assert!(rig.bytes(0, MEMORY) == memory);
    assert!(rig.device.save().unwrap() == state);
}

#[test]
fn quiescing_is_prompt_with_the_largest_copies_in_flight() {
    const GIB: u64 = 1 << 30;
    let rig = Rig::quiescent(4, Guest::new(GIB + DATA));
    rig.device.run();
    let mut driver = Driver::enable(&rig, 8);
    for _ in 0..8 {
        driver.push(&rig, &copy(DATA, 0x10_0000, GIB));
    }
    driver.ring(&rig);
    rig.wait_until("a start", |rig| rig.read32(reg::RING_HEAD) == 8);
    std::thread::sleep(Duration::from_millis(5));
    let start = Instant::now();
    rig.quiesce();
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_millis(250), "{elapsed:?}");
    assert_eq!(rig.read32(reg::COMP_TAIL), 0, "the copies were in flight");
}

#[test]
fn disabling_drops_what_is_in_flight_and_returns_when_it_has_stopped() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 4);
    for _ in 0..4 {
        driver.push(&rig, &fill(u64::MAX, DATA, 0x40_0000));
    }
    driver.ring(&rig);
    rig.wait_until("a start", |rig| rig.read32(reg::RING_HEAD) > 0);
    rig.clear_control(RING);
    rig.memory.write(DATA, &vec![0; 0x40_0000]);
    let completed = rig.read32(reg::COMP_TAIL);
    std::thread::sleep(Duration::from_millis(20));
    assert!(rig.bytes(DATA, 0x40_0000).iter().all(|byte| *byte == 0));
    assert_eq!(rig.status(), 0);
    assert_eq!(rig.read32(reg::COMP_TAIL), completed);

    let mut driver = Driver::enable(&rig, 4);
    assert_eq!((rig.read32(reg::RING_HEAD), rig.read32(reg::COMP_TAIL)), (0, 0));
    assert_eq!(driver.run(&rig, &nop(5)).cookie, 5);
}

#[test]
fn reset_in_the_middle_of_everything_leaves_the_device_as_it_was_built() {
    let rig = Rig::new(2);
    rig.quiesce();
    let fresh = rig.device.save().unwrap();
    rig.device.run();
    rig.write32(reg::INT_ENABLE, 0xf);
    let mut driver = Driver::enable(&rig, 4);
    for _ in 0..4 {
        driver.push(&rig, &notifying(fill(1, DATA + 0x20_0000, 0x20_0000)));
    }
    driver.ring(&rig);
    rig.start_generator(100, 3, 0, 0);
    rig.wait_until("a completion", |rig| rig.irq.pending() != 0);
    rig.quiesce();
    rig.device.reset();
    assert!(rig.device.save().unwrap() == fresh);
    assert_eq!(rig.irq.pending(), 0);
    rig.device.run();
    let mut driver = Driver::enable(&rig, 4);
    assert_eq!(driver.run(&rig, &nop(7)).cookie, 7);
}

#[test]
fn a_running_device_gives_no_state_and_takes_none() {
    let rig = Rig::new(1);
    rig.quiesce();
    let state = rig.device.save().unwrap();
    rig.device.run();
    assert!(rig.device.save().is_err());
    assert!(rig.device.restore(&state).is_err());
}

#[test]
fn registers_written_while_quiescent_take_effect_when_the_device_runs() {
    let rig = Rig::new(2);
    rig.quiesce();
    let mut driver = Driver::enable(&rig, 4);
    driver.push(&rig, &nop(3));
    driver.ring(&rig);
    rig.start_generator(10, 1, 0, 4);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!((rig.read32(reg::RING_HEAD), rig.positions(2)), (0, vec![0, 0]));
    rig.device.run();
    assert_eq!(driver.wait(&rig).cookie, 3);
    rig.wait_until("the generator's end", |rig| rig.positions(2) == [4, 4]);
}

#[test]
fn stopped_dma_is_no_error_and_loses_no_work() {
    let rig = Rig::new(2);
    let mut driver = Driver::enable(&rig, 8);
    rig.start_generator(50, 9, 0, 400);
    for n in 0..8 {
        driver.push(&rig, &fill(n, DATA + 0x20_0000 + n * 0x4_0000, 0x4_0000));
    }
    driver.ring(&rig);
    for _ in 0..5 {
        rig.memory.suspend();
        std::thread::sleep(Duration::from_millis(3));
        rig.memory.space().resume();
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..8 {
        let done = driver.wait(&rig);
        assert_eq!((done.status, done.result), (0, 0x4_0000));
        let at = DATA + 0x20_0000 + u64::from(done.index) * 0x4_0000;
        assert_eq!(rig.bytes(at + 0x3_fff8, 8), u64::from(done.index).to_le_bytes());
    }
    rig.wait_until("the generator's end", |rig| rig.positions(2) == [400, 400]);
    assert_eq!(rig.read32(reg::ERROR), 0);
}

#[test]
fn wild_register_writes_harm_nothing() {
    let rig = Rig::new(2);
    for seed in 0..3_u64 {
        for (n, byte) in super::rig::noise(600, seed).chunks(3).map(|c| (c[0], c[1])) {
            let offset = [
                0x10, 0x14, 0x18, 0x20, 0x24, 0x2c, 0x30, 0x100, 0x10c, 0x120, 0x1000, 0x1004,
            ];
            let value = u32::from(byte).rotate_left(u32::from(n));
            rig.write32(offset[usize::from(n) % offset.len()], value);
        }
        rig.quiesce();
        rig.device.save().unwrap();
        rig.device.reset();
        rig.device.run();
    }
    rig.start_generator(5, 1, 0, 1);
    rig.wait_until("the end", |rig| rig.positions(2) == [1, 1]);
    rig.clear_control(GENERATOR);
}
