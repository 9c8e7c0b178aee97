//! [`FakeData`] and [`FakePlace`]: what a device's migration has to do with besides the device.

use std::io;
use std::sync::{Arc, Weak};

use pagetrail_tracker::Witness;
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::migration::PrecopyInfo;
use crate::passthrough::kernel::MigrationFile;
use crate::passthrough::migration::Place;

/// Data that ends with a zero.
#[derive(Debug)]
pub(in crate::passthrough) struct FakeData(pub(in crate::passthrough) Arc<Mutex<Vec<u8>>>);

impl MigrationFile for FakeData {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        let mut left = self.0.lock();
        if left.is_empty() {
            return Err(Errno::NOMSG.into());
        }
        if *left == [0] {
            return Ok(0);
        }
        let end = left.iter().position(|byte| *byte == 0).unwrap_or(left.len());
        let len = out.len().min(3).min(end);
        out[..len].copy_from_slice(&left[..len]);
        left.drain(..len);
        Ok(len)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let len = data.len().min(3);
        if data[..len].contains(&b'!') {
            return Err(Errno::INVAL.into());
        }
        self.0.lock().extend(&data[..len]);
        Ok(len)
    }

    fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        Ok(PrecopyInfo {
            initial_bytes: self.0.lock().len() as u64,
            dirty_bytes: 0,
        })
    }
}

/// Has the witness of what holds the device quiet.
#[derive(Debug, Default)]
pub(in crate::passthrough) struct FakePlace(Mutex<Weak<Held>>);

/// Holds the device quiet.
#[derive(Debug)]
struct Held(Arc<dyn Witness>);

impl FakePlace {
    /// Whether the device is held quiet, and is.
    pub(in crate::passthrough) fn is_quiet(&self) -> bool {
        let held = self.0.lock().upgrade();
        held.is_some_and(|held| held.0.is_quiet())
    }

    /// Whether the device is held quiet.
    pub(in crate::passthrough) fn is_held(&self) -> bool {
        self.0.lock().upgrade().is_some()
    }
}

impl Place for FakePlace {
    fn quiesce(&self, witness: Arc<dyn Witness>) -> Box<dyn Send> {
        let held = Arc::new(Held(witness));
        *self.0.lock() = Arc::downgrade(&held);
        Box::new(held)
    }
}
