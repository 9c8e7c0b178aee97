//! A model of a device server, for tests of the *client*: what it must hold against, and what its oracle must catch.
//!
//! It speaks the protocol over a real socket and has a device whose registers are those of the `dma` device's generator (one
//! lane, no interrupts) and whose ring knows one operation, fill. One lock makes it slow and easy to be sure of; each [`Fault`] breaks it in one way.
#![allow(dead_code)] // Each test binary uses a part of it.

mod device;
mod service;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use device::Device;

/// What is wrong with the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Marks of the page at this IOVA are dropped.
    SuppressPage(u64),
    /// A page is marked first and written some time after.
    MarkBeforeWrite,
    /// What is written is told by the report after the next.
    LateReport,
    /// One bit of the saved state is flipped after its checksum was made.
    CorruptStream,
    /// Every tenth write of the generator is counted and not done: some are the last of their page.
    SkipWrite,
    /// Requests get no answer.
    Silent,
    /// Replies carry another id.
    WrongId,
    /// The first reply to a region read comes after the client has given up.
    SlowOnce,
}

/// A model server: a listening thread and a generator thread.
pub(crate) struct Model {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Model {
    /// Starts a server that listens at `path`.
    pub(crate) fn start(path: &Path, fault: Fault) -> Self {
        let listener = UnixListener::bind(path).expect("the socket can be bound");
        listener
            .set_nonblocking(true)
            .expect("the socket can be made non-blocking");
        let device = Arc::new(Mutex::new(Device::new(fault)));
        let stop = Arc::new(AtomicBool::new(false));
        let serving = {
            let (device, stop) = (Arc::clone(&device), Arc::clone(&stop));
            std::thread::spawn(move || serve(&listener, &device, &stop, fault))
        };
        let generating = {
            let (device, stop) = (Arc::clone(&device), Arc::clone(&stop));
            std::thread::spawn(move || generate(&device, &stop))
        };
        Self {
            path: path.to_owned(),
            stop,
            threads: vec![serving, generating],
        }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the model has been printed; the test that it belongs to fails on its own.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, device: &Mutex<Device>, stop: &AtomicBool, fault: Fault) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(true)
                    .expect("the stream can be made non-blocking");
                service::serve(OwnedFd::from(stream), device, stop, fault);
                device.lock().disconnect();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn generate(device: &Mutex<Device>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // An odd number: with `MarkBeforeWrite` the pause falls between a mark and its write.
        for _ in 0..15 {
            device.lock().step();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
