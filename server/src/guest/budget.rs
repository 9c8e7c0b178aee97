//! The part of this process's address space that guest memory may take.
//!
//! A sparse file is as long as its owner says and costs nothing, so a client could map the address space full, and the next
//! allocation of any VM's would fail and end the process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::MapRefusal;

/// Bytes that all mappings of this process may have together: half of what a 47-bit address space holds.
const LIMIT: u64 = 1 << 46;

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A part that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    bytes: u64,
}

impl Reservation {
    /// Takes `bytes`, if there are as many left.
    pub(super) fn take(bytes: u64) -> Result<Self, MapRefusal> {
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= LIMIT);
        // A count, which orders nothing.
        match TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self { bytes }),
            Err(_) => Err(MapRefusal::NoAddressSpace),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_take_the_whole_address_space() {
        let most = Reservation::take(LIMIT / 4 * 3).expect("tests beside this one map little");
        assert_eq!(
            Reservation::take(LIMIT / 2).unwrap_err(),
            MapRefusal::NoAddressSpace
        );
        assert_eq!(
            Reservation::take(u64::MAX).unwrap_err(),
            MapRefusal::NoAddressSpace
        );
        drop(most);
        Reservation::take(LIMIT / 2).expect("it was given back");
    }
}
