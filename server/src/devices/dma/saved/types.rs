//! The types of the stream, and how they are made of the device's. They change by the rules of `docs/src/saved-state.md`.

use serde::{Deserialize, Serialize};

use super::{Snapshot, VERSION};
use crate::devices::dma::generator::{GeneratorMode, GeneratorState};
use crate::devices::dma::ring::{RingMode, RingState};
use crate::devices::dma::work::{Notify, Operation, Work};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedDevice {
    pub(super) version: u32,
    pub(super) int_cause: u32,
    pub(super) int_enable: u32,
    pub(super) error: u32,
    pub(super) ring_tail: u32,
    pub(super) comp_head: u32,
    pub(super) ring: SavedRing,
    pub(super) generator: SavedGenerator,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SavedMode {
    Disabled,
    Running,
    Failed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRing {
    pub(super) mode: SavedMode,
    pub(super) desc_base: u64,
    pub(super) comp_base: u64,
    pub(super) entries: u32,
    pub(super) head: u32,
    pub(super) comp_tail: u32,
    pub(super) in_flight: Vec<SavedWork>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedWork {
    pub(super) index: u32,
    pub(super) cookie: u64,
    pub(super) notify: bool,
    pub(super) operation: SavedOperation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum SavedOperation {
    Refused,
    Nop,
    Copy {
        source: u64,
        dest: u64,
        length: u64,
        done: u64,
    },
    Fill {
        pattern: u64,
        dest: u64,
        length: u64,
        done: u64,
    },
    Crc {
        source: u64,
        length: u64,
        done: u64,
        crc: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedGenerator {
    pub(super) mode: SavedMode,
    pub(super) base: u64,
    pub(super) pages: u64,
    pub(super) seed: u64,
    pub(super) rate: u64,
    pub(super) limit: u64,
    pub(super) positions: Vec<u64>,
}

impl SavedDevice {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let events = snapshot.events;
        Self {
            version: VERSION,
            int_cause: events.causes.bits(),
            int_enable: events.enabled.bits(),
            error: events.first_error.map_or(0, |error| error as u32),
            ring_tail: snapshot.ring_tail,
            comp_head: snapshot.comp_head,
            ring: SavedRing::new(&snapshot.ring),
            generator: SavedGenerator::new(snapshot.generator, &snapshot.positions),
        }
    }
}

impl SavedRing {
    pub(super) fn new(ring: &RingState) -> Self {
        Self {
            mode: match ring.mode {
                RingMode::Disabled => SavedMode::Disabled,
                RingMode::Running(_) => SavedMode::Running,
                RingMode::Failed => SavedMode::Failed,
            },
            desc_base: ring.config.desc_base,
            comp_base: ring.config.comp_base,
            entries: ring.config.entries,
            head: ring.head,
            comp_tail: ring.comp_tail,
            in_flight: ring.queue.iter().map(SavedWork::new).collect(),
        }
    }
}

impl SavedWork {
    pub(super) fn new(work: &Work) -> Self {
        Self {
            index: work.index,
            cookie: work.cookie,
            notify: work.notify == Notify::Raise,
            operation: SavedOperation::new(&work.operation),
        }
    }
}

impl SavedOperation {
    pub(super) fn new(operation: &Operation) -> Self {
        match *operation {
            Operation::Refused => Self::Refused,
            Operation::Nop => Self::Nop,
            Operation::Copy { source, dest, span } => Self::Copy {
                source,
                dest,
                length: span.length(),
                done: span.done(),
            },
            Operation::Fill { pattern, dest, span } => Self::Fill {
                pattern,
                dest,
                length: span.length(),
                done: span.done(),
            },
            Operation::Crc { source, span, crc } => Self::Crc {
                source,
                length: span.length(),
                done: span.done(),
                crc,
            },
        }
    }
}

impl SavedGenerator {
    pub(super) fn new(generator: GeneratorState, positions: &[u64]) -> Self {
        let config = generator.config;
        Self {
            mode: match generator.mode {
                GeneratorMode::Disabled => SavedMode::Disabled,
                GeneratorMode::Running(_) => SavedMode::Running,
                GeneratorMode::Failed => SavedMode::Failed,
            },
            base: config.base,
            pages: config.pages,
            seed: config.seed,
            rate: config.rate,
            limit: config.limit,
            positions: positions.to_vec(),
        }
    }
}
