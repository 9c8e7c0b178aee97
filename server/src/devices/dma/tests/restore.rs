//! A state that the device cannot have saved is refused, and leaves the device as it was.

use ciborium::Value;

use super::rig::{COMP_BASE, DATA, DESC_BASE, MEMORY, Rig};
use crate::devices::dma::Lanes;
use crate::devices::dma::events::EventState;
use crate::devices::dma::generator::{GeneratorConfig, GeneratorMode, GeneratorState, Window};
use crate::devices::dma::ring::{Geometry, RingConfig, RingMode, RingState};
use crate::devices::dma::saved::{Snapshot, decode, encode, max_len};
use crate::devices::dma::spec::{Causes, ErrorCode};
use crate::devices::dma::work::{Notify, Operation, Span, Work};
use crate::guest::testing::Guest;

const LANES: u32 = 2;

/// A device in the middle of everything.
fn snapshot() -> Snapshot {
    let span = |length, done| Span::new(length, done).unwrap();
    let operations = [
        Operation::Copy {
            source: DATA,
            dest: DATA + 0x1000,
            span: span(0x3_0000, 0x1_0000),
        },
        Operation::Fill {
            pattern: 7,
            dest: DATA,
            span: span(0x1_0001, 0x1_0001),
        },
        Operation::Crc {
            source: DATA,
            span: span(0x2_0000, 0x1_0000),
            crc: 99,
        },
        Operation::Crc {
            source: DATA,
            span: span(5, 0),
            crc: 0,
        },
        Operation::Nop,
        Operation::Refused,
    ];
    let work = |(index, operation): (u32, Operation)| Work {
        index,
        cookie: u64::from(index) << 40,
        notify: if index.is_multiple_of(2) {
            Notify::Raise
        } else {
            Notify::Silent
        },
        operation,
    };
    let ring = RingConfig {
        desc_base: DESC_BASE,
        comp_base: COMP_BASE,
        entries: 8,
    };
    let generator = GeneratorConfig {
        base: DATA,
        pages: 100,
        seed: u64::MAX,
        rate: 5,
        limit: 1000,
    };
    Snapshot {
        events: EventState {
            causes: Causes::COMPLETION | Causes::GEN_FINISHED,
            enabled: Causes::COMPLETION,
            first_error: Some(ErrorCode::BadDoorbell),
        },
        ring_tail: 108,
        comp_head: 99,
        ring: RingState {
            config: ring,
            mode: RingMode::Running(Geometry::new(ring).unwrap()),
            head: 106,
            comp_tail: 100,
            queue: (100..).zip(operations).map(work).collect(),
        },
        generator: GeneratorState {
            config: generator,
            mode: GeneratorMode::Running(Window::new(generator).unwrap()),
        },
        positions: vec![1000, 17],
    }
}

fn lanes(lanes: u32) -> Lanes {
    Lanes::new(lanes).unwrap()
}

fn state() -> Vec<u8> {
    encode(&snapshot()).unwrap()
}

/// The value at a path such as `ring.in_flight.0.index`.
fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, step| match value {
        Value::Map(fields) => {
            let field = fields.iter_mut().find(|(name, _)| name.as_text() == Some(step));
            &mut field.unwrap_or_else(|| panic!("no {step} in {path}")).1
        }
        Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
        _ => panic!("nothing below {step} in {path}"),
    })
}

/// The state of [`snapshot`] with one value replaced.
fn changed(path: &str, new: impl Into<Value>) -> Vec<u8> {
    replaced(&state(), path, new)
}

/// `state` with one value replaced.
pub(super) fn replaced(state: &[u8], path: &str, new: impl Into<Value>) -> Vec<u8> {
    let mut value: Value = ciborium::from_reader(state).unwrap();
    *at(&mut value, path) = new.into();
    let mut bytes = Vec::new();
    ciborium::into_writer(&value, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_saved_state_restores_to_itself() {
    assert_eq!(decode(&state(), lanes(LANES)).unwrap(), snapshot());
    assert_eq!(
        changed("version", 1),
        state(),
        "the tool of these tests changes nothing by itself"
    );
}

#[test]
fn every_value_that_cannot_be_is_refused() {
    let work = |n: u32, field: &str| format!("ring.in_flight.{n}.{field}");
    let values = [
        ("version", 2_u64),
        ("version", 0),
        ("int_cause", 0x10),
        ("int_enable", 0x8000_0000),
        ("error", 8),
        ("ring.entries", 0),
        ("ring.entries", 6),
        ("ring.entries", 4),
        ("ring.entries", 8192),
        ("ring.desc_base", 1),
        ("ring.desc_base", u64::MAX - 63),
        ("ring.comp_base", 16),
        ("ring.comp_base", u64::MAX - 31),
        ("ring.head", 107),
        ("ring.head", 99),
        ("ring.comp_tail", 99),
        ("ring.comp_tail", 107),
        ("generator.base", DATA + 1),
        ("generator.pages", 0),
        ("generator.pages", u64::MAX),
        ("generator.pages", 1),
        ("generator.limit", 999),
        ("generator.positions.0", 1001),
        ("generator.positions.1", u64::MAX),
        (&work(0, "index"), 101),
        (&work(0, "index"), 106),
        (&work(0, "index"), 0x6000_0000),
        (&work(0, "operation.Copy.length"), 0xffff),
        (&work(0, "operation.Copy.length"), (1 << 30) + 1),
        (&work(0, "operation.Copy.done"), 1),
        (&work(0, "operation.Copy.done"), 0x4_0000),
        (&work(0, "operation.Copy.source"), u64::MAX - 0x2_0000),
        (&work(0, "operation.Copy.dest"), u64::MAX - 0x2_0000),
        (&work(1, "operation.Fill.done"), 0x1_0002),
        (&work(1, "operation.Fill.dest"), u64::MAX),
        (&work(2, "operation.Crc.source"), u64::MAX),
        (&work(3, "operation.Crc.crc"), 1),
        (&work(2, "operation.Crc.crc"), 1 << 32),
    ];
    for (path, value) in values {
        assert!(
            decode(&changed(path, value), lanes(LANES)).is_err(),
            "{path} = {value:#x}"
        );
    }
    for (path, value) in [
        ("ring.mode", "Paused"),
        ("ring.mode", "Disabled"),
        ("ring.mode", "Failed"),
        ("generator.mode", "running"),
        ("ring.in_flight.4.operation", "Halt"),
    ] {
        assert!(
            decode(&changed(path, value), lanes(LANES)).is_err(),
            "{path} = {value}"
        );
    }
    for path in [
        "ring",
        "generator",
        "ring.in_flight",
        "generator.positions",
        "version",
        "ring.head",
    ] {
        assert!(
            decode(&changed(path, Value::Null), lanes(LANES)).is_err(),
            "no {path}"
        );
    }
}

#[test]
fn a_failure_without_an_error_is_refused() {
    let mut failed = snapshot();
    failed.ring.mode = RingMode::Failed;
    failed.ring.queue.clear();
    assert!(decode(&encode(&failed).unwrap(), lanes(LANES)).is_ok());
    failed.events.first_error = None;
    assert!(decode(&encode(&failed).unwrap(), lanes(LANES)).is_err());
}

#[test]
fn what_a_driver_may_do_is_taken() {
    for (path, value) in [
        ("ring_tail", u64::from(u32::MAX)),
        ("comp_head", 0x8000_0000),
        ("generator.seed", 0),
        ("generator.rate", u64::MAX),
        ("generator.limit", 0),
        ("ring.in_flight.0.cookie", u64::MAX),
        ("ring.in_flight.3.operation.Crc.source", u64::MAX),
    ] {
        assert!(
            decode(&changed(path, value), lanes(LANES)).is_ok(),
            "{path} = {value:#x}"
        );
    }
}

#[test]
fn a_state_cut_short_anywhere_is_refused() {
    let state = state();
    for len in 0..state.len() {
        assert!(decode(&state[..len], lanes(LANES)).is_err(), "{len} bytes");
    }
}

#[test]
fn a_state_with_anything_behind_it_is_refused() {
    for behind in [0, 0xf6, 0xff] {
        let mut state = state();
        state.push(behind);
        assert!(decode(&state, lanes(LANES)).is_err());
    }
    let mut twice = state();
    twice.extend(state());
    assert!(decode(&twice, lanes(LANES)).is_err());
}

#[test]
fn a_state_of_other_lanes_is_refused() {
    for other in [1, 3, 64] {
        assert!(decode(&state(), lanes(other)).is_err());
    }
}

#[test]
fn no_flipped_bit_panics_and_what_is_taken_saves_as_it_came() {
    let state = state();
    for bit in 0..state.len() * 8 {
        let mut flipped = state.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(snapshot) = decode(&flipped, lanes(LANES)) {
            assert_eq!(encode(&snapshot).unwrap(), flipped);
        }
    }
}

#[test]
fn a_full_ring_of_the_largest_work_fits() {
    let mut full = snapshot();
    let config = RingConfig {
        entries: 4096,
        ..full.ring.config
    };
    full.ring.config = config;
    full.ring.mode = RingMode::Running(Geometry::new(config).unwrap());
    full.ring.comp_tail = u32::MAX - 4095;
    full.ring.head = 0;
    full.ring.queue = (u32::MAX - 4095..=u32::MAX)
        .map(|index| Work {
            index,
            cookie: u64::MAX,
            notify: Notify::Silent,
            operation: Operation::Copy {
                source: u64::MAX - (1 << 31),
                dest: u64::MAX - (1 << 31),
                span: Span::new(1 << 30, 0x3fff << 16).unwrap(),
            },
        })
        .collect();
    let bytes = encode(&full).unwrap();
    assert_eq!(decode(&bytes, lanes(LANES)).unwrap(), full);
    let bound = max_len(4096, lanes(LANES));
    assert!(
        bytes.len() <= bound,
        "{} bytes are more than the {bound} that clients plan with",
        bytes.len()
    );
}

#[test]
fn an_endless_state_is_refused_without_growing() {
    let endless_array = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(decode(&endless_array, lanes(LANES)).is_err());
    assert!(
        decode(&vec![0x81; 1 << 20], lanes(LANES)).is_err(),
        "nested without end"
    );
    assert!(decode(&vec![0; 64 << 20], lanes(LANES)).is_err());
}

#[test]
fn a_refused_state_leaves_the_device_as_it_was() {
    let rig = Rig::quiescent(LANES, Guest::new(MEMORY));
    rig.device.restore(&state()).unwrap();
    assert_eq!(rig.irq.pending(), 1);
    for path in [
        "int_cause",
        "ring.head",
        "generator.base",
        "ring.in_flight.5.index",
    ] {
        assert!(rig.device.restore(&changed(path, 110)).is_err(), "{path}");
        assert_eq!(rig.device.save().unwrap(), state());
        assert_eq!(rig.irq.pending(), 1);
    }
}

#[test]
fn a_state_that_version_1_wrote_is_still_read() {
    let version_1 = include_bytes!("saved-v1.cbor");
    assert_eq!(decode(version_1, lanes(LANES)).unwrap(), snapshot());
}
