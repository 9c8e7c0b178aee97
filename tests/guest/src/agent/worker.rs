//! A thread that keeps a device's rings at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;

use super::device::Device;

/// A device at work.
pub(super) struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Device, Result<()>)>,
}

impl Worker {
    /// Does batch after batch until it is stopped or something is wrong.
    pub(super) fn start(mut device: Device) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = device.work() {
                    return (device, Err(error));
                }
            }
            (device, Ok(()))
        });
        Self { stop, thread }
    }

    /// Lets the batch under way end; returns the device and what was wrong.
    pub(super) fn stop(self) -> (Device, Result<()>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a worker does not panic")
    }
}
