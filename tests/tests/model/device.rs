//! The model's device: mappings, log, generator and saved state.

use std::collections::BTreeSet;
use std::sync::Arc;

use vfio_user_check::driver::{Completion, Descriptor, Generator, LaneWrite, regs};
use vfio_user_check::vmm::{PAGE_SIZE, Region};
use vfio_user_check::wire::{MigState, consts};
use zerocopy::IntoBytes;

use super::Fault;

/// errno of a refused request.
pub(super) type Answer<T> = Result<T, u32>;

/// Bytes of saved state: seven words.
const STATE_WORDS: usize = 7;

pub(super) struct Device {
    fault: Fault,
    pub(super) regions: Vec<Region>,
    logging: bool,
    dirty: BTreeSet<u64>,
    late: BTreeSet<u64>,
    generator: Generator,
    enabled: bool,
    position: u64,
    desc_base: u64,
    comp_base: u64,
    pending: Option<LaneWrite>,
    pub(super) state: MigState,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    pub(super) config: [u8; 256],
}

impl Device {
    pub(super) fn new(fault: Fault) -> Self {
        let mut config = [0; 256];
        config[0..2].copy_from_slice(&regs::VENDOR.to_le_bytes());
        config[2..4].copy_from_slice(&regs::DEVICE.to_le_bytes());
        Self {
            fault,
            regions: Vec::new(),
            logging: false,
            dirty: BTreeSet::new(),
            late: BTreeSet::new(),
            generator: Generator::default(),
            enabled: false,
            position: 0,
            desc_base: 0,
            comp_base: 0,
            pending: None,
            state: MigState::Running,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            config,
        }
    }

    pub(super) fn disconnect(&mut self) {
        *self = Self::new(self.fault);
    }

    pub(super) fn reset(&mut self) {
        let regions = std::mem::take(&mut self.regions);
        let fresh = Self::new(self.fault);
        let (logging, dirty) = (self.logging, std::mem::take(&mut self.dirty));
        *self = Self {
            regions,
            logging,
            dirty,
            ..fresh
        };
    }

    fn running(&self) -> bool {
        matches!(
            self.state,
            MigState::Running | MigState::RunningP2p | MigState::PreCopy | MigState::PreCopyP2p
        )
    }

    /// One page write of the generator.
    pub(super) fn step(&mut self) {
        if let Some(write) = self.pending.take() {
            self.store(&write);
            self.position += 1;
            return;
        }
        if !self.enabled || !self.running() {
            return;
        }
        let Some(write) = self.generator.write(0, 1, self.position) else {
            return;
        };
        if self.fault == Fault::MarkBeforeWrite {
            self.mark(self.generator.base + write.page * PAGE_SIZE);
            self.pending = Some(write);
            return;
        }
        if self.fault != Fault::SkipWrite || self.position % 10 != 9 {
            self.store(&write);
            self.mark(self.generator.base + write.page * PAGE_SIZE);
        }
        self.position += 1;
    }

    /// The doorbell: the one descriptor of the ring, a fill, is done on the spot.
    fn ring(&mut self) {
        let read = |iova: u64| {
            let mut bytes = [0; size_of::<Descriptor>()];
            let region = self
                .regions
                .iter()
                .find(|region| region.contains(iova, bytes.len() as u64))?;
            region.read(iova, &mut bytes);
            Some(zerocopy::transmute!(bytes))
        };
        let Some(descriptor): Option<Descriptor> = read(self.desc_base) else {
            return;
        };
        let completion = Completion {
            cookie: descriptor.cookie,
            phase: 1,
            ..Completion::default()
        };
        let pattern = descriptor
            .source
            .to_le_bytes()
            .repeat(descriptor.length as usize / 8);
        self.write(descriptor.dest, &pattern);
        self.write(self.comp_base, completion.as_bytes());
    }

    fn write(&mut self, iova: u64, data: &[u8]) {
        if let Some(region) = self
            .regions
            .iter()
            .find(|region| region.contains(iova, data.len() as u64))
        {
            region.write(iova, data);
        }
        let first = iova - iova % PAGE_SIZE;
        for page in (first..iova + data.len() as u64).step_by(PAGE_SIZE as usize) {
            self.mark(page);
        }
    }

    fn store(&self, write: &LaneWrite) {
        let iova = self.generator.base + write.page * PAGE_SIZE;
        if let Some(region) = self
            .regions
            .iter()
            .find(|region| region.contains(iova, PAGE_SIZE))
        {
            region.write(iova, &write.content());
        }
    }

    fn mark(&mut self, page: u64) {
        if !self.logging || self.fault == Fault::SuppressPage(page) {
            return;
        }
        match self.fault {
            Fault::LateReport => self.late.insert(page),
            _ => self.dirty.insert(page),
        };
    }

    pub(super) fn map(&mut self, iova: u64, size: u64, file: std::fs::File, offset: u64) -> Answer<()> {
        if self
            .regions
            .iter()
            .any(|region| iova < region.end() && region.iova() < iova + size)
        {
            return Err(consts::EEXIST);
        }
        let region = Region::new(iova, size, Arc::new(file), offset).map_err(|_| consts::EINVAL)?;
        self.regions.push(region);
        Ok(())
    }

    pub(super) fn unmap(&mut self, iova: u64, size: u64) -> Answer<()> {
        let exact = |region: &Region| region.iova() == iova && region.size() == size;
        let index = self.regions.iter().position(exact).ok_or(consts::ENOENT)?;
        self.regions.remove(index);
        Ok(())
    }

    pub(super) fn start_logging(&mut self) -> Answer<()> {
        if std::mem::replace(&mut self.logging, true) {
            return Err(consts::EBUSY);
        }
        self.dirty.clear();
        Ok(())
    }

    pub(super) fn stop_logging(&mut self) {
        self.logging = false;
        self.dirty.clear();
    }

    pub(super) fn report(&mut self, iova: u64, length: u64, page_size: u64) -> Answer<Vec<u8>> {
        if !self.logging || page_size == 0 || length == 0 {
            return Err(consts::EINVAL);
        }
        let mut words = vec![0_u64; length.div_ceil(page_size).div_ceil(64) as usize];
        let within: Vec<u64> = self.dirty.range(iova..iova + length).copied().collect();
        for page in within {
            self.dirty.remove(&page);
            let bit = (page - iova) / page_size;
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        let late: Vec<u64> = self.late.range(iova..iova + length).copied().collect();
        for page in late {
            self.late.remove(&page);
            self.dirty.insert(page);
        }
        Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    pub(super) fn set_state(&mut self, state: MigState) -> Answer<()> {
        match (self.state, state) {
            (MigState::StopCopy, MigState::PreCopy) | (_, MigState::Error) => return Err(consts::EINVAL),
            (_, MigState::StopCopy) => self.outgoing = self.save(),
            (_, MigState::Resuming) => self.incoming.clear(),
            (MigState::Resuming, _) => self.load()?,
            _ => {}
        }
        self.state = state;
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let words = [
            self.generator.base,
            self.generator.pages,
            self.generator.seed,
            self.generator.rate,
            u64::from(self.enabled),
            self.position,
        ];
        let sum = words.iter().fold(1, |sum: u64, word| sum.rotate_left(7) ^ word);
        let mut bytes: Vec<u8> = words
            .iter()
            .chain(&[sum])
            .flat_map(|word| word.to_le_bytes())
            .collect();
        if self.fault == Fault::CorruptStream {
            bytes[17] ^= 0x10;
        }
        bytes
    }

    fn load(&mut self) -> Answer<()> {
        let (chunks, rest) = self.incoming.as_chunks::<8>();
        if chunks.len() != STATE_WORDS || !rest.is_empty() {
            return Err(consts::EINVAL);
        }
        let words: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        let sum = words[..STATE_WORDS - 1]
            .iter()
            .fold(1, |sum: u64, word| sum.rotate_left(7) ^ word);
        if sum != words[STATE_WORDS - 1] {
            return Err(consts::EINVAL);
        }
        self.generator = Generator {
            base: words[0],
            pages: words[1],
            seed: words[2],
            rate: words[3],
            limit: 0,
        };
        self.enabled = words[4] != 0;
        self.position = words[5];
        Ok(())
    }

    pub(super) fn read_state(&mut self, size: usize) -> Answer<Vec<u8>> {
        match self.state {
            MigState::StopCopy => Ok(self.outgoing.drain(..size.min(self.outgoing.len())).collect()),
            MigState::PreCopy | MigState::PreCopyP2p => Ok(Vec::new()),
            _ => Err(consts::EINVAL),
        }
    }

    pub(super) fn write_state(&mut self, data: &[u8]) -> Answer<()> {
        if self.state != MigState::Resuming {
            return Err(consts::EINVAL);
        }
        self.incoming.extend_from_slice(data);
        Ok(())
    }

    pub(super) fn read_register(&self, offset: u64) -> u64 {
        match offset {
            regs::ID => regs::ID_VALUE.into(),
            regs::VERSION | regs::LANES => 1,
            regs::CONTROL if self.enabled => regs::CONTROL_GEN_ENABLE.into(),
            regs::STATUS if self.enabled => regs::STATUS_GEN_RUNNING.into(),
            regs::GEN_BASE => self.generator.base,
            regs::GEN_PAGES => self.generator.pages,
            regs::GEN_SEED => self.generator.seed,
            regs::GEN_RATE => self.generator.rate,
            regs::GEN_LIMIT => self.generator.limit,
            regs::GEN_POSITION => self.position,
            _ => 0,
        }
    }

    pub(super) fn write_register(&mut self, offset: u64, value: u64) {
        match offset {
            regs::CONTROL => {
                let enable = value & u64::from(regs::CONTROL_GEN_ENABLE) != 0;
                if enable && !self.enabled {
                    self.position = 0;
                }
                if self.pending.is_some() {
                    self.step();
                }
                self.enabled = enable;
            }
            regs::DESC_BASE => self.desc_base = value,
            regs::COMP_BASE => self.comp_base = value,
            regs::RING_TAIL => self.ring(),
            regs::GEN_BASE => self.generator.base = value,
            regs::GEN_PAGES => self.generator.pages = value,
            regs::GEN_SEED => self.generator.seed = value,
            regs::GEN_RATE => self.generator.rate = value,
            regs::GEN_LIMIT => self.generator.limit = value,
            _ => {}
        }
    }
}
