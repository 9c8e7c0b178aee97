//! Promises of guest memory, one by one.

mod access;
#[cfg(feature = "fault-injection")]
mod faults;
mod files;
mod huge_pages;
mod leases;
mod model;
mod races;
mod stopping;
mod truncation;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagetrail_tracker::SoftwareTracker;

use super::testing::memfd;
use super::{Access, AllowedFiles, BusMaster, DmaSpace, MapRequest, Share};

const PAGE: u64 = 4096;

/// Of a list of pages.
const NONE: [u64; 0] = [];

/// An empty space with bus mastering on.
fn space() -> DmaSpace {
    let tracker = Arc::new(SoftwareTracker::new().unwrap());
    let space = DmaSpace::new(tracker, AllowedFiles::TmpfsAndHugetlbfs, Share::of_the_rest());
    space.set_bus_master(BusMaster::On);
    space
}

fn request(iova: u64, size: u64, access: Access, fd: impl Into<OwnedFd>) -> MapRequest {
    MapRequest {
        iova,
        size,
        offset: 0,
        access,
        fd: Some(fd.into()),
    }
}

/// Maps a new file of `size` bytes for writes.
fn map(space: &DmaSpace, iova: u64, size: u64) -> File {
    let file = memfd(size);
    space
        .map(request(iova, size, Access::Write, file.try_clone().unwrap()))
        .unwrap();
    file
}

/// Long enough for what must happen.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Long enough to see that something does not happen.
fn shortly() -> Instant {
    Instant::now() + Duration::from_millis(50)
}
