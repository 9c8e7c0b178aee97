//! What guest memory may take of this process: mappings, and address space. And how much of it a VM is sure of.
//!
//! A sparse file is as long as its owner says and costs nothing, so a client could map the address space full, and the next
//! allocation of any VM's would fail and end the process. Within the limits, a client could still take everything before
//! another VM's has come. So half of everything is set apart in equal parts, one for each VM; the other half is for whoever
//! comes first. A VM takes from its own part while there is something in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::MapRefusal;
use super::sigbus::SLOTS;

/// This process: half of what a 47-bit address space holds.
static PROCESS: Limits = Limits::new(SLOTS as u64, 1 << 46);

/// What mappings of memory may take, and how much they do.
#[derive(Debug)]
struct Limits {
    mappings: Counter,
    bytes: Counter,
}

impl Limits {
    const fn new(mappings: u64, bytes: u64) -> Self {
        Self {
            mappings: Counter::new(mappings),
            bytes: Counter::new(bytes),
        }
    }
}

/// A VM's share of what the process can map. Clones are the same share.
#[derive(Clone, Debug)]
pub struct Share(Arc<Resources>);

#[derive(Debug)]
struct Resources {
    mappings: Quota,
    bytes: Quota,
}

impl Share {
    /// The share of one VM of a process that has `vms` of them: half of an equal part is set apart for it.
    pub fn of_one_in(vms: usize) -> Self {
        Self::within(&PROCESS, vms)
    }

    /// A share for which nothing is set apart.
    pub fn of_the_rest() -> Self {
        Self::within(&PROCESS, usize::MAX / 2)
    }

    /// A share of a test's own.
    #[cfg(test)]
    pub(crate) fn of_its_own(mappings: u64, bytes: u64) -> Self {
        Self::within(Box::leak(Box::new(Limits::new(mappings, bytes))), usize::MAX / 2)
    }

    fn within(limits: &'static Limits, vms: usize) -> Self {
        let parts = 2 * vms.max(1) as u64;
        let quota = |counter: &'static Counter| Quota::new(counter, counter.limit / parts);
        Self(Arc::new(Resources {
            mappings: quota(&limits.mappings),
            bytes: quota(&limits.bytes),
        }))
    }

    /// Takes one mapping of `bytes`, if there are as many left for this VM.
    pub(crate) fn take(&self, bytes: u64) -> Result<Reservation, MapRefusal> {
        Ok(Reservation {
            _mapping: self.0.mappings.take(1).ok_or(MapRefusal::TooMany)?,
            _bytes: self.0.bytes.take(bytes).ok_or(MapRefusal::NoAddressSpace)?,
        })
    }
}

/// What a mapping takes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    _mapping: Taken,
    _bytes: Taken,
}

/// A VM's part of one resource, and the process's, for when that is used up.
#[derive(Debug)]
struct Quota {
    own: Arc<Counter>,
    process: &'static Counter,
    /// What `own` is set apart from.
    _set_apart: Option<Taken>,
}

impl Quota {
    /// Sets `part` apart; nothing, if the process has no longer as much.
    fn new(process: &'static Counter, part: u64) -> Self {
        let set_apart = Taken::from(Source::Process(process), part);
        let own = if set_apart.is_some() { part } else { 0 };
        Self {
            own: Arc::new(Counter::new(own)),
            process,
            _set_apart: set_apart,
        }
    }

    fn take(&self, amount: u64) -> Option<Taken> {
        Taken::from(Source::Own(Arc::clone(&self.own)), amount)
            .or_else(|| Taken::from(Source::Process(self.process), amount))
    }
}

/// An amount that is taken, until it is dropped.
#[derive(Debug)]
struct Taken {
    source: Source,
    amount: u64,
}

#[derive(Debug)]
enum Source {
    Own(Arc<Counter>),
    Process(&'static Counter),
}

impl Taken {
    fn from(source: Source, amount: u64) -> Option<Self> {
        source.counter().take(amount).then(|| Self { source, amount })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.source.counter().give_back(self.amount);
    }
}

impl Source {
    fn counter(&self) -> &Counter {
        match self {
            Self::Own(counter) => counter,
            Self::Process(counter) => counter,
        }
    }
}

/// How much of something is taken.
#[derive(Debug)]
struct Counter {
    limit: u64,
    // A count, which orders nothing.
    taken: AtomicU64,
}

impl Counter {
    const fn new(limit: u64) -> Self {
        Self {
            limit,
            taken: AtomicU64::new(0),
        }
    }

    /// Whether there was as much left.
    fn take(&self, amount: u64) -> bool {
        let more = |taken: u64| taken.checked_add(amount).filter(|sum| *sum <= self.limit);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn give_back(&self, amount: u64) {
        self.taken.fetch_sub(amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPINGS: u64 = 600;
    const BYTES: u64 = 1 << 46;

    /// A process of a test's own.
    fn process() -> &'static Limits {
        Box::leak(Box::new(Limits::new(MAPPINGS, BYTES)))
    }

    /// Takes mappings of `bytes` until there is nothing left.
    fn exhaust(share: &Share, bytes: u64) -> (Vec<Reservation>, MapRefusal) {
        let mut taken = Vec::new();
        loop {
            match share.take(bytes) {
                Ok(reservation) => taken.push(reservation),
                Err(refusal) => return (taken, refusal),
            }
        }
    }

    #[test]
    fn a_client_cannot_take_the_whole_address_space() {
        let share = Share::of_the_rest();
        let most = share
            .take(PROCESS.bytes.limit / 4 * 3)
            .expect("tests beside this one map little");
        for bytes in [PROCESS.bytes.limit / 2, u64::MAX] {
            assert_eq!(share.take(bytes).unwrap_err(), MapRefusal::NoAddressSpace);
        }
        drop(most);
        share.take(PROCESS.bytes.limit / 2).expect("it was given back");
    }

    #[test]
    fn a_vm_that_takes_all_it_can_leaves_the_others_their_parts() {
        let process = process();
        let [greedy, modest, late] = std::array::from_fn(|_| Share::within(process, 3));
        let (all, refusal) = exhaust(&greedy, 4096);
        assert_eq!(refusal, MapRefusal::TooMany);
        assert_eq!(all.len(), 400, "its own part and the rest");
        for share in [&modest, &late] {
            assert_eq!(exhaust(share, 4096).0.len(), 100);
        }
        drop(all);
        let (_large, refusal) = exhaust(&greedy, BYTES / 60);
        assert_eq!(refusal, MapRefusal::NoAddressSpace);
        modest.take(BYTES / 6).expect("its own part");
    }

    #[test]
    fn one_vm_alone_can_have_everything() {
        assert_eq!(
            exhaust(&Share::within(process(), 1), 4096).0.len() as u64,
            MAPPINGS
        );
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_what_was_set_apart_too() {
        let process = process();
        let [share, other] = std::array::from_fn(|_| Share::within(process, 2));
        for _ in 0..3 {
            assert_eq!(exhaust(&share, 4096).0.len(), 450);
        }
        drop((share, other));
        let nothing_set_apart = Share::within(process, usize::MAX / 2);
        assert_eq!(exhaust(&nothing_set_apart, 4096).0.len() as u64, MAPPINGS);
    }

    #[test]
    fn a_share_outlives_its_vm_as_long_as_something_is_mapped() {
        let process = process();
        let share = Share::within(process, 1);
        let mapped = share.take(BYTES / 4).expect("its own part");
        drop(share);
        assert!(Share::within(process, 1).take(BYTES).is_err());
        drop(mapped);
        Share::within(process, 1)
            .take(BYTES / 2)
            .expect("all was given back");
    }
}
