//! What a state must fulfil. A check refuses what a device cannot have saved, and nothing else.

use std::collections::HashSet;

use super::Snapshot;
use super::types::{SavedDevice, SavedGenerator, SavedMode, SavedOperation, SavedRing, SavedWork};
use crate::device::{RestoreError, require};
use crate::devices::dma::Lanes;
use crate::devices::dma::events::EventState;
use crate::devices::dma::generator::{GeneratorConfig, GeneratorMode, GeneratorState, Window};
use crate::devices::dma::ring::{Geometry, RingConfig, RingMode, RingState};
use crate::devices::dma::spec::{Causes, ErrorCode, MAX_ENTRIES};
use crate::devices::dma::work::{Notify, Operation, Span, Work};

fn refused(why: &str) -> RestoreError {
    RestoreError(why.to_owned())
}

impl SavedDevice {
    pub(super) fn check(self, lanes: Lanes) -> Result<Snapshot, RestoreError> {
        let events = EventState {
            causes: check_causes(self.int_cause)?,
            enabled: check_causes(self.int_enable)?,
            first_error: check_error(self.error)?,
        };
        let has_failed = self.ring.mode == SavedMode::Failed
            || self.generator.mode == SavedMode::Failed
            || events.causes.intersects(Causes::RING_ERROR | Causes::GEN_ERROR);
        require(
            !has_failed || events.first_error.is_some(),
            "failed without an error",
        )?;
        let (generator, positions) = self.generator.check(lanes)?;
        Ok(Snapshot {
            events,
            ring_tail: self.ring_tail,
            comp_head: self.comp_head,
            ring: self.ring.check()?,
            generator,
            positions,
        })
    }
}

fn check_causes(bits: u32) -> Result<Causes, RestoreError> {
    Causes::from_bits(bits).ok_or_else(|| refused("interrupt causes that there are not"))
}

fn check_error(code: u32) -> Result<Option<ErrorCode>, RestoreError> {
    if code == 0 {
        return Ok(None);
    }
    let known = ErrorCode::ALL.into_iter().find(|error| *error as u32 == code);
    known
        .map(Some)
        .ok_or_else(|| refused("an error code that there is not"))
}

impl SavedRing {
    fn check(self) -> Result<RingState, RestoreError> {
        let config = RingConfig {
            desc_base: self.desc_base,
            comp_base: self.comp_base,
            entries: self.entries,
        };
        let geometry = Geometry::new(config);
        let fetched = self.head.wrapping_sub(self.comp_tail);
        require(
            fetched <= MAX_ENTRIES,
            "more descriptors in flight than a ring has",
        )?;
        let mode = match self.mode {
            SavedMode::Disabled => RingMode::Disabled,
            SavedMode::Running => RingMode::Running(geometry.ok_or_else(|| refused("a bad ring at work"))?),
            SavedMode::Failed => RingMode::Failed,
        };
        let expected = if let RingMode::Running(geometry) = mode {
            require(
                fetched <= geometry.entries(),
                "more descriptors in flight than the ring has",
            )?;
            fetched as usize
        } else {
            0
        };
        require(
            self.in_flight.len() == expected,
            "descriptors in flight that do not fit the counters",
        )?;
        check_indices(self.head, &self.in_flight)?;
        Ok(RingState {
            config,
            mode,
            head: self.head,
            comp_tail: self.comp_tail,
            queue: self
                .in_flight
                .into_iter()
                .map(SavedWork::check)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Every index was fetched, and none twice.
fn check_indices(head: u32, works: &[SavedWork]) -> Result<(), RestoreError> {
    let mut seen = HashSet::with_capacity(works.len());
    for work in works {
        let age = head.wrapping_sub(work.index);
        let was_fetched = (1..=u32::MAX / 2).contains(&age);
        require(was_fetched, "a descriptor in flight that was not fetched")?;
        require(seen.insert(work.index), "a descriptor twice in flight")?;
    }
    Ok(())
}

impl SavedWork {
    fn check(self) -> Result<Work, RestoreError> {
        Ok(Work {
            index: self.index,
            cookie: self.cookie,
            notify: if self.notify {
                Notify::Raise
            } else {
                Notify::Silent
            },
            operation: self.operation.check()?,
        })
    }
}

impl SavedOperation {
    fn check(self) -> Result<Operation, RestoreError> {
        let span = |length, done| {
            Span::new(length, done).ok_or_else(|| refused("a length or progress that cannot be"))
        };
        let reaches = |at: u64, length: u64, done: u64| {
            let wraps = done > 0 && at.checked_add(length - 1).is_none();
            require(!wraps, "work begun on a range that wraps around")
        };
        Ok(match self {
            Self::Refused => Operation::Refused,
            Self::Nop => Operation::Nop,
            Self::Copy {
                source,
                dest,
                length,
                done,
            } => {
                let span = span(length, done)?;
                reaches(source, length, done)?;
                reaches(dest, length, done)?;
                Operation::Copy { source, dest, span }
            }
            Self::Fill {
                pattern,
                dest,
                length,
                done,
            } => {
                let span = span(length, done)?;
                reaches(dest, length, done)?;
                Operation::Fill { pattern, dest, span }
            }
            Self::Crc {
                source,
                length,
                done,
                crc,
            } => {
                let span = span(length, done)?;
                reaches(source, length, done)?;
                require(done > 0 || crc == 0, "the CRC of nothing is zero")?;
                Operation::Crc { source, span, crc }
            }
        })
    }
}

impl SavedGenerator {
    fn check(self, lanes: Lanes) -> Result<(GeneratorState, Vec<u64>), RestoreError> {
        require(
            self.positions.len() == lanes.get() as usize,
            "of a device with other lanes",
        )?;
        let config = GeneratorConfig {
            base: self.base,
            pages: self.pages,
            seed: self.seed,
            rate: self.rate,
            limit: self.limit,
        };
        let window = Window::new(config);
        let mode = match self.mode {
            SavedMode::Disabled => GeneratorMode::Disabled,
            SavedMode::Running => {
                GeneratorMode::Running(window.ok_or_else(|| refused("a bad generator at work"))?)
            }
            SavedMode::Failed => GeneratorMode::Failed,
        };
        if mode != GeneratorMode::Disabled {
            let last = |lane| window.map_or(0, |window| window.last_position(lane, lanes));
            let within = self
                .positions
                .iter()
                .enumerate()
                .all(|(lane, position)| *position <= last(lane));
            require(within, "a generator beyond its limit")?;
        }
        Ok((GeneratorState { config, mode }, self.positions))
    }
}
