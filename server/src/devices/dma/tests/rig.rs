//! A device with memory behind it, and a driver's view of both.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::device::{Bar, Device, DeviceModel};
use crate::devices::dma::layout::{CompletionBody, Descriptor};
use crate::devices::dma::spec::{self, opcode};
use crate::devices::dma::{DmaModel, Lanes};
use crate::guest::testing::Guest;
use crate::irq::{Interrupts, Irq};

/// Bytes of guest memory, from IOVA 0 on.
pub(super) const MEMORY: u64 = 8 << 20;
/// Where the tests have the rings.
pub(super) const DESC_BASE: u64 = 0x1000;
pub(super) const COMP_BASE: u64 = 0x9_0000;
/// Memory from here on is free for data.
pub(super) const DATA: u64 = 0x10_0000;

/// Offsets of registers, written down a second time.
pub(super) mod reg {
    pub(in super::super) const CONTROL: u64 = 0x10;
    pub(in super::super) const STATUS: u64 = 0x14;
    pub(in super::super) const INT_CAUSE: u64 = 0x18;
    pub(in super::super) const INT_ENABLE: u64 = 0x1c;
    pub(in super::super) const DESC_BASE: u64 = 0x20;
    pub(in super::super) const COMP_BASE: u64 = 0x28;
    pub(in super::super) const RING_ENTRIES: u64 = 0x30;
    pub(in super::super) const RING_HEAD: u64 = 0x34;
    pub(in super::super) const COMP_TAIL: u64 = 0x38;
    pub(in super::super) const ERROR: u64 = 0x3c;
    pub(in super::super) const GEN_BASE: u64 = 0x100;
    pub(in super::super) const GEN_PAGES: u64 = 0x108;
    pub(in super::super) const GEN_SEED: u64 = 0x110;
    pub(in super::super) const GEN_RATE: u64 = 0x118;
    pub(in super::super) const GEN_LIMIT: u64 = 0x120;
    pub(in super::super) const GEN_POSITION: u64 = 0x200;
    pub(in super::super) const RING_TAIL: u64 = 0x1000;
    pub(in super::super) const COMP_HEAD: u64 = 0x1004;
}

pub(super) const RING: u32 = 1;
pub(super) const GENERATOR: u32 = 2;

/// A device, its memory, its interrupts and its mapped doorbells.
pub(super) struct Rig {
    pub(super) device: Arc<dyn Device>,
    pub(super) memory: Guest,
    pub(super) irq: Irq,
    bar0: MmapRegion,
}

impl Rig {
    /// A running device with memory of its own.
    pub(super) fn new(lanes: u32) -> Self {
        let rig = Self::quiescent(lanes, Guest::new(MEMORY));
        rig.device.run();
        rig
    }

    /// A quiescent device on `memory`.
    pub(super) fn quiescent(lanes: u32, memory: Guest) -> Self {
        let model = DmaModel {
            lanes: Lanes::new(lanes).unwrap(),
        };
        let irq = Interrupts::new(model.spec().irqs).irq();
        let built = model.build(memory.dma(), irq.clone()).unwrap();
        let (_, fd) = built.bar_files.into_iter().next().unwrap();
        let file = FileOffset::new(File::from(fd), 0);
        Self {
            device: built.device,
            memory,
            irq,
            bar0: MmapRegion::from_file(file, spec::BAR0_SIZE as usize).unwrap(),
        }
    }

    pub(super) fn read32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(Bar::Bar0, offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub(super) fn read64(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.device.read(Bar::Bar0, offset, &mut data).unwrap();
        u64::from_le_bytes(data)
    }

    pub(super) fn write32(&self, offset: u64, value: u32) {
        self.device
            .write(Bar::Bar0, offset, &value.to_le_bytes())
            .unwrap();
    }

    pub(super) fn write64(&self, offset: u64, value: u64) {
        self.device
            .write(Bar::Bar0, offset, &value.to_le_bytes())
            .unwrap();
    }

    /// What lies in memory.
    pub(super) fn bytes(&self, iova: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.memory.read(iova, &mut bytes);
        bytes
    }

    /// A store into the mapped doorbell page.
    pub(super) fn store_mapped(&self, offset: u64, value: u32) {
        let bar = self.bar0.as_volatile_slice();
        bar.store(value.to_le(), offset as usize, Ordering::Release)
            .unwrap();
    }

    pub(super) fn set_control(&self, bits: u32) {
        self.write32(reg::CONTROL, self.read32(reg::CONTROL) | bits);
    }

    pub(super) fn clear_control(&self, bits: u32) {
        self.write32(reg::CONTROL, self.read32(reg::CONTROL) & !bits);
    }

    pub(super) fn status(&self) -> u32 {
        self.read32(reg::STATUS)
    }

    pub(super) fn positions(&self, lanes: u64) -> Vec<u64> {
        (0..lanes)
            .map(|lane| self.read64(reg::GEN_POSITION + 8 * lane))
            .collect()
    }

    pub(super) fn quiesce(&self) {
        self.device
            .quiesce(Instant::now() + Duration::from_secs(5))
            .unwrap();
    }

    /// Quiesces this device and goes on with another one on a copy of the memory.
    pub(super) fn migrate(&self, lanes: u32) -> Self {
        self.quiesce();
        self.memory.suspend();
        let state = self.device.save().unwrap();
        let dest = Self::quiescent(lanes, self.memory.duplicate());
        dest.device.restore(&state).unwrap();
        assert_eq!(
            dest.device.save().unwrap(),
            state,
            "a restored device saves what it was given"
        );
        dest.device.run();
        dest
    }

    /// Waits until `holds`.
    pub(super) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: did not happen; status {:#x}",
                self.status()
            );
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Starts the generator on a window at [`DATA`].
    pub(super) fn start_generator(&self, pages: u64, seed: u64, rate: u64, limit: u64) {
        self.write64(reg::GEN_BASE, DATA);
        self.write64(reg::GEN_PAGES, pages);
        self.write64(reg::GEN_SEED, seed);
        self.write64(reg::GEN_RATE, rate);
        self.write64(reg::GEN_LIMIT, limit);
        self.set_control(GENERATOR);
    }
}

/// The driver's half of the rings. It outlives a migration, as a driver does.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    pub(super) entries: u32,
    pub(super) published: u32,
    pub(super) consumed: u32,
}

/// A completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) cookie: u64,
    pub(super) result: u64,
    pub(super) index: u32,
    pub(super) status: u32,
}

impl Driver {
    /// Sets the rings up and enables them.
    pub(super) fn enable(rig: &Rig, entries: u32) -> Self {
        rig.write64(reg::DESC_BASE, DESC_BASE);
        rig.write64(reg::COMP_BASE, COMP_BASE);
        rig.write32(reg::RING_ENTRIES, entries);
        rig.memory.write(COMP_BASE, &vec![0; entries as usize * 32]);
        rig.set_control(RING);
        Self {
            entries,
            published: 0,
            consumed: 0,
        }
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.published.wrapping_sub(self.consumed)
    }

    /// Puts a descriptor into the ring; the doorbell is not rung.
    pub(super) fn push(&mut self, rig: &Rig, descriptor: &Descriptor) {
        let slot = u64::from(self.published % self.entries);
        rig.memory.write(DESC_BASE + slot * 64, descriptor.as_bytes());
        self.published = self.published.wrapping_add(1);
    }

    /// Writes the doorbell register.
    pub(super) fn ring(&self, rig: &Rig) {
        rig.write32(reg::RING_TAIL, self.published);
    }

    /// Takes a completion, if there is one, and frees its slot.
    pub(super) fn poll(&mut self, rig: &Rig) -> Option<Completion> {
        let at = COMP_BASE + u64::from(self.consumed % self.entries) * 32;
        let expected = 1 - (self.consumed / self.entries) % 2;
        let mut phase = [0; 4];
        rig.memory.read(at + 0x1c, &mut phase);
        if u32::from_le_bytes(phase) != expected {
            return None;
        }
        let mut bytes = [0; size_of::<CompletionBody>()];
        rig.memory.read(at, &mut bytes);
        let body = CompletionBody::read_from_bytes(&bytes).unwrap();
        assert_eq!(body.reserved.get(), 0);
        self.consumed = self.consumed.wrapping_add(1);
        rig.store_mapped(reg::COMP_HEAD, self.consumed);
        Some(Completion {
            cookie: body.cookie.get(),
            result: body.result.get(),
            index: body.index.get(),
            status: body.status.get(),
        })
    }

    /// Waits for a completion.
    pub(super) fn wait(&mut self, rig: &Rig) -> Completion {
        let mut completion = None;
        rig.wait_until("a completion", |rig| {
            completion = self.poll(rig);
            completion.is_some()
        });
        completion.unwrap()
    }

    /// Runs one descriptor.
    pub(super) fn run(&mut self, rig: &Rig, descriptor: &Descriptor) -> Completion {
        self.push(rig, descriptor);
        self.ring(rig);
        self.wait(rig)
    }
}

pub(super) fn nop(cookie: u64) -> Descriptor {
    let mut descriptor = Descriptor::new_zeroed();
    descriptor.cookie = cookie.into();
    descriptor
}

pub(super) fn copy(source: u64, dest: u64, length: u64) -> Descriptor {
    Descriptor {
        opcode: opcode::COPY.into(),
        source: source.into(),
        dest: dest.into(),
        length: length.into(),
        ..nop(0xc0)
    }
}

pub(super) fn fill(pattern: u64, dest: u64, length: u64) -> Descriptor {
    Descriptor {
        opcode: opcode::FILL.into(),
        source: pattern.into(),
        dest: dest.into(),
        length: length.into(),
        ..nop(0xf1)
    }
}

pub(super) fn crc(source: u64, length: u64) -> Descriptor {
    Descriptor {
        opcode: opcode::CRC.into(),
        source: source.into(),
        length: length.into(),
        ..nop(0xcc)
    }
}

pub(super) fn notifying(descriptor: Descriptor) -> Descriptor {
    Descriptor {
        flags: spec::FLAG_NOTIFY.into(),
        ..descriptor
    }
}

/// Bytes that differ from place to place.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}
