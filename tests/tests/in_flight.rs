//! Work in flight at the switch-over: every descriptor completes exactly once, every interrupt arrives.

mod common;

use std::time::Duration;

use common::{BUFFER, Pair, dma, options};
use vfio_user_check::driver::{Completion, Descriptor, Operation, Ring, regs};
use vfio_user_check::migrate::{Migration, Silent, read_stream};
use vfio_user_check::vmm::{GuestMemory, IrqKind};
use vfio_user_check::wire::MigState;

const ENTRIES: u32 = 64;
const RING: u64 = 8 << 20;
const LENGTH: u64 = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What descriptor number `cookie` does: fill, copy and CRC in turn, each with buffers of its own.
fn operation(cookie: u64) -> Operation {
    let dest = BUFFER + (cookie % 32) * 2 * LENGTH;
    let source = (24 << 20) + (cookie % 32) * LENGTH;
    match cookie % 3 {
        0 => Operation::Fill {
            pattern: 0x0101_0101_0101_0101 * (cookie % 250 + 1),
            dest,
            length: LENGTH,
        },
        1 => Operation::Copy {
            source,
            dest,
            length: LENGTH,
        },
        _ => Operation::Crc {
            source,
            length: LENGTH,
        },
    }
}

/// Checks what the descriptor must have left in memory.
fn verify(memory: &GuestMemory, completion: &Completion) {
    assert_eq!(completion.status, regs::ERROR_NONE, "{completion:?}");
    let read = |iova: u64| {
        let mut data = vec![0; LENGTH as usize];
        memory.read(iova, &mut data).expect("a read");
        data
    };
    match operation(completion.cookie) {
        Operation::Fill { pattern, dest, .. } => {
            assert_eq!(completion.result, LENGTH);
            assert!(
                read(dest).chunks(8).all(|word| word == pattern.to_le_bytes()),
                "descriptor {}",
                completion.cookie
            );
        }
        Operation::Copy { source, dest, .. } => {
            assert_eq!(completion.result, LENGTH);
            assert!(read(dest) == read(source), "descriptor {}", completion.cookie);
        }
        Operation::Crc { source, .. } => {
            assert_eq!(completion.result, u64::from(crc32c::crc32c(&read(source))));
        }
        Operation::Nop => {}
    }
}

#[test]
fn descriptors_in_flight_complete_exactly_once() {
    let mut pair = Pair::new(1);
    let mut ring = Ring::new(pair.source.memory(), RING, ENTRIES).expect("a ring");
    dma(&mut pair.source)
        .enable_ring(&ring)
        .expect("the ring is enabled");
    let mut silent = Silent;
    let mut migration =
        Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
    let mut seen = Vec::new();
    let mut next = 0;
    for _ in 0..3 {
        migration.pass().expect("a pass");
        let room = u64::from(ENTRIES - ring.outstanding()).min(31);
        for cookie in next..next + room {
            ring.push(&Descriptor::new(operation(cookie), cookie))
                .expect("a push")
                .expect("there is room");
        }
        next += room;
        dma(migration.source())
            .ring_doorbell(&ring)
            .expect("the doorbell");
        if let Some(completion) = ring.poll().expect("a poll") {
            seen.push(completion);
        }
    }
    let outcome = migration.switch_over().expect("it switches over");
    assert!(outcome.verdict.passed(), "{:#?}", outcome.verdict);
    let mut ring = ring.moved_to(pair.dest.memory());
    dma(&mut pair.dest).ring_doorbell(&ring).expect("the doorbell");
    while seen.len() < next as usize {
        seen.push(
            ring.wait(TIMEOUT)
                .expect("a poll")
                .expect("every descriptor completes"),
        );
    }
    assert!(
        ring.wait(Duration::from_millis(50)).expect("a poll").is_none(),
        "a completion came twice"
    );
    let mut cookies: Vec<u64> = seen.iter().map(|completion| completion.cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, (0..next).collect::<Vec<_>>());
    // Buffers are used again every 32 descriptors: only the last round's are still as they were left.
    for completion in seen.iter().filter(|completion| completion.cookie + 32 > next) {
        verify(pair.dest.memory(), completion);
    }
}

#[test]
fn a_ring_goes_on_after_the_migration() {
    let mut pair = Pair::new(1);
    let mut ring = Ring::new(pair.source.memory(), RING, 4).expect("a ring");
    dma(&mut pair.source)
        .enable_ring(&ring)
        .expect("the ring is enabled");
    for cookie in 0..6 {
        ring.push(&Descriptor::new(operation(cookie), cookie))
            .expect("a push")
            .expect("there is room");
        dma(&mut pair.source).ring_doorbell(&ring).expect("the doorbell");
        verify(
            pair.source.memory(),
            &ring.wait(TIMEOUT).expect("a poll").expect("a completion"),
        );
    }
    let mut silent = Silent;
    let mut migration =
        Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
    migration.pass().expect("a pass");
    migration.switch_over().expect("it switches over");
    let mut ring = ring.moved_to(pair.dest.memory());
    for cookie in 6..12 {
        ring.push(&Descriptor::new(operation(cookie), cookie))
            .expect("a push")
            .expect("there is room");
        dma(&mut pair.dest).ring_doorbell(&ring).expect("the doorbell");
        verify(
            pair.dest.memory(),
            &ring.wait(TIMEOUT).expect("a poll").expect("a completion"),
        );
    }
}

#[test]
fn the_mapped_doorbell_is_seen_before_and_after() {
    let mut pair = Pair::new(1);
    let mut ring = Ring::new(pair.source.memory(), RING, ENTRIES).expect("a ring");
    let mut driver = dma(&mut pair.source);
    driver.enable_ring(&ring).expect("the ring is enabled");
    let doorbells = driver.map_doorbells().expect("the doorbells can be mapped");
    ring.push(&Descriptor::new(Operation::Nop, 1)).expect("a push");
    doorbells
        .store(regs::RING_TAIL, ring.published())
        .expect("a store");
    assert_eq!(
        ring.wait(TIMEOUT).expect("a poll").expect("a completion").cookie,
        1
    );
    let mut silent = Silent;
    let mut migration =
        Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
    migration.pass().expect("a pass");
    // Published right before the stop: the source or the destination does it, and one of them only.
    ring.push(&Descriptor::new(Operation::Nop, 2)).expect("a push");
    doorbells
        .store(regs::RING_TAIL, ring.published())
        .expect("a store");
    migration.switch_over().expect("it switches over");
    let mut ring = ring.moved_to(pair.dest.memory());
    assert_eq!(
        ring.wait(TIMEOUT).expect("a poll").expect("a completion").cookie,
        2
    );
    let doorbells = dma(&mut pair.dest)
        .map_doorbells()
        .expect("the doorbells can be mapped");
    assert_eq!(doorbells.load(regs::RING_TAIL), Some(ring.published()));
    ring.push(&Descriptor::new(Operation::Nop, 3)).expect("a push");
    doorbells
        .store(regs::RING_TAIL, ring.published())
        .expect("a store");
    assert_eq!(
        ring.wait(TIMEOUT).expect("a poll").expect("a completion").cookie,
        3
    );
}

/// Has the source complete a descriptor, and takes the one signal of it. The cause is not acknowledged.
fn complete_with_an_interrupt(pair: &mut Pair) {
    let mut ring = Ring::new(pair.source.memory(), RING, ENTRIES).expect("a ring");
    let mut driver = dma(&mut pair.source);
    driver.enable_causes(regs::CAUSE_ALL).expect("causes are enabled");
    driver.enable_ring(&ring).expect("the ring is enabled");
    ring.push(&Descriptor::new(Operation::Nop, 1)).expect("a push");
    driver.ring_doorbell(&ring).expect("the doorbell");
    let signals = pair.source.devices()[0]
        .interrupts()
        .expect("interrupts are connected")
        .wait(0, TIMEOUT);
    assert_eq!(signals, 1);
}

#[test]
fn an_interrupt_pending_at_the_switch_over_reaches_eventfds_that_are_connected_after_the_load() {
    let mut pair = Pair::new(1);
    complete_with_an_interrupt(&mut pair);
    // The driver has not acknowledged the cause yet: the eventfd that told of it stays behind.
    let mut silent = Silent;
    let mut migration =
        Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
    migration.pass().expect("a pass");
    migration.switch_over().expect("it switches over");
    let after = pair.dest.devices()[0]
        .interrupts()
        .expect("interrupts are connected")
        .wait(0, TIMEOUT);
    // Once for the eventfd that was connected; one too many does no harm.
    assert!(after >= 1, "the interrupt is lost");
    assert_eq!(
        dma(&mut pair.dest).take_causes().expect("causes"),
        regs::CAUSE_COMPLETION
    );
}

#[test]
fn an_interrupt_pending_at_the_switch_over_reaches_eventfds_that_were_connected_before_the_load() {
    let mut pair = Pair::new(1);
    complete_with_an_interrupt(&mut pair);
    let source = &mut pair.source.devices()[0];
    source
        .client()
        .set_mig_state(MigState::StopCopy)
        .expect("it stops");
    let stream = read_stream(source, 1 << 20).expect("a stream");

    let dest = &mut pair.dest.devices()[0];
    dest.connect_interrupts(IrqKind::Msix).expect("interrupts");
    dest.client()
        .set_mig_state(MigState::Resuming)
        .expect("it resumes");
    dest.client()
        .mig_data_write(&stream)
        .expect("the stream is taken");
    let connected = dest.interrupts().expect("interrupts are connected");
    assert_eq!(connected.take(0), 0, "not while its state is loaded");
    dest.client().set_mig_state(MigState::Running).expect("it runs");
    let connected = dest.interrupts().expect("interrupts are connected");
    assert!(connected.wait(0, TIMEOUT) >= 1, "the interrupt is lost");
}

#[test]
fn an_interrupt_that_was_acknowledged_is_not_signalled_again() {
    let mut pair = Pair::new(1);
    complete_with_an_interrupt(&mut pair);
    dma(&mut pair.source).take_causes().expect("causes");
    let mut silent = Silent;
    let mut migration =
        Migration::start(&mut pair.source, &mut pair.dest, options(), &mut silent).expect("it starts");
    migration.switch_over().expect("it switches over");
    let after = pair.dest.devices()[0]
        .interrupts()
        .expect("interrupts are connected")
        .wait(0, Duration::from_millis(100));
    assert_eq!(after, 0);
}
