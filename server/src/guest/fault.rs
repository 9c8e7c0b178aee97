//! Deliberate faults of a device's writes: what a check of a migration must catch.
//!
//! They take the place of the one function that stores and marks, so the device and the rest of this module
//! are the same with and without them.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pagetrail_tracker::{Fault, Iova, IovaRange, SoftwareTracker};
use parking_lot::Mutex;
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

use super::file::PAGE;
use super::mapping::Mapping;
use super::space::Space;
use super::table::Piece;

/// How long an exaggerated store buffer holds a store back. A real one does for nanoseconds.
const HOLD: Duration = Duration::from_millis(20);

/// Stores that it holds at most: with pages, 16 MiB.
const CAPACITY: usize = 4096;

/// Between the mark and the write of [`DmaFault::MarkBeforeWrite`].
const HESITATION: Duration = Duration::from_millis(1);

/// A way in which a device's writes are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaFault {
    /// Marks, waits a little, and then writes.
    MarkBeforeWrite,
    /// A CPU with an exaggerated store buffer: what is written to pages that are marked already becomes
    /// visible some milliseconds later, or at a barrier. Not a fault: with the reader's barrier nothing is
    /// lost.
    StoreBuffer,
    /// The same CPU, and a reader that leaves its barrier out.
    NoReaderBarrier,
}

/// A fault at work.
#[derive(Debug)]
pub(super) enum Injected {
    MarkBeforeWrite,
    StoreBuffer(Arc<StoreBuffer>),
}

impl Space {
    /// Injects a fault, once.
    pub(super) fn inject(&self, fault: DmaFault) {
        let injected = match fault {
            DmaFault::MarkBeforeWrite => Injected::MarkBeforeWrite,
            DmaFault::StoreBuffer => {
                self.tracker.set_fault(Fault::ReaderBarrier(Arc::new(drain_all)));
                Injected::StoreBuffer(StoreBuffer::start())
            }
            DmaFault::NoReaderBarrier => {
                self.tracker.set_fault(Fault::ReaderBarrier(Arc::new(|| {})));
                Injected::StoreBuffer(StoreBuffer::start())
            }
        };
        self.fault.set(injected).expect("one fault for a space");
    }
}

impl Injected {
    /// What [`Space::store`] does, done wrong.
    pub(super) fn store(
        &self,
        tracker: &SoftwareTracker,
        piece: Piece<'_>,
        write: impl FnOnce(VolatileSlice<'_>),
    ) {
        match self {
            Self::MarkBeforeWrite => {
                tracker.mark(piece.range());
                std::thread::sleep(HESITATION);
                write(piece.slice());
            }
            Self::StoreBuffer(buffer) => buffer.store(tracker, piece, write),
        }
    }

    /// What is held back of `range` becomes visible.
    pub(super) fn land(&self, range: IovaRange) {
        if let Self::StoreBuffer(buffer) = self {
            buffer.held.lock().land(range);
        }
    }

    /// What is held back becomes visible.
    pub(super) fn drain(&self) {
        if let Self::StoreBuffer(buffer) = self {
            buffer.held.lock().land(IovaRange::ALL);
        }
    }
}

/// The store buffers of this process: a barrier of the kernel's reaches every CPU as well.
static BUFFERS: Mutex<Vec<Weak<StoreBuffer>>> = Mutex::new(Vec::new());

/// The reader's barrier.
fn drain_all() {
    let buffers: Vec<_> = BUFFERS.lock().iter().filter_map(Weak::upgrade).collect();
    for buffer in buffers {
        buffer.held.lock().land(IovaRange::ALL);
    }
}

/// Stores that nobody sees yet.
#[derive(Debug, Default)]
pub(super) struct StoreBuffer {
    held: Mutex<Held>,
}

impl StoreBuffer {
    /// A buffer, and a thread that lets land what has been held long enough.
    fn start() -> Arc<Self> {
        let buffer = Arc::new(Self::default());
        let weak = Arc::downgrade(&buffer);
        let mut buffers = BUFFERS.lock();
        buffers.retain(|other| other.strong_count() > 0);
        buffers.push(Weak::clone(&weak));
        drop(buffers);
        std::thread::spawn(move || {
            while let Some(buffer) = weak.upgrade() {
                buffer.held.lock().land_old();
                drop(buffer);
                std::thread::sleep(HOLD / 10);
            }
        });
        buffer
    }

    /// The look at the bits and the store are one step here, and the reader's barrier waits for it. So either
    /// this look comes after the reader's clear, or the barrier finds the store in the buffer.
    fn store(&self, tracker: &SoftwareTracker, piece: Piece<'_>, write: impl FnOnce(VolatileSlice<'_>)) {
        let mut held = self.held.lock();
        if is_due(tracker, piece.range()) {
            return held.push(HeldStore::new(piece, write));
        }
        held.land(piece.range());
        write(piece.slice());
        tracker.mark(piece.range());
    }
}

/// Stores, oldest first. They land in this order.
#[derive(Debug, Default)]
struct Held(VecDeque<HeldStore>);

impl Held {
    fn push(&mut self, store: HeldStore) {
        if self.0.len() == CAPACITY {
            self.land_first(1);
        }
        self.0.push_back(store);
    }

    fn land(&mut self, range: IovaRange) {
        let newest = self.0.iter().rposition(|store| store.range.overlaps(&range));
        self.land_first(newest.map_or(0, |newest| newest + 1));
    }

    fn land_old(&mut self) {
        self.land_first(self.0.partition_point(|store| store.since.elapsed() >= HOLD));
    }

    fn land_first(&mut self, count: usize) {
        for store in self.0.drain(..count) {
            let memory = store.mapping.slice(store.offset, store.data.len());
            memory.copy_from(&store.data);
        }
    }
}

#[derive(Debug)]
struct HeldStore {
    since: Instant,
    range: IovaRange,
    mapping: Arc<Mapping>,
    offset: usize,
    data: Vec<u8>,
}

impl HeldStore {
    fn new(piece: Piece<'_>, write: impl FnOnce(VolatileSlice<'_>)) -> Self {
        // Words, so that an atomic store finds its alignment.
        let mut words = vec![0_u64; piece.len.div_ceil(8)];
        let data = &mut words.as_mut_bytes()[..piece.len];
        write(VolatileSlice::from(&mut *data));
        Self {
            since: Instant::now(),
            range: piece.range(),
            mapping: Arc::clone(piece.mapping),
            offset: piece.offset,
            data: data.to_vec(),
        }
    }
}

/// Whether every page is marked already.
fn is_due(tracker: &SoftwareTracker, range: IovaRange) -> bool {
    let (first, last) = (range.start().get() / PAGE, range.last().get() / PAGE);
    (first..=last).all(|page| tracker.is_due(Iova::new(page * PAGE)))
}
