//! Which files may be guest memory, and which mappings there may be.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{OFlags, SealFlags};
use rustix::io::Errno;

use super::super::testing::memfd;
use super::super::{Access, AllowedFiles, DmaError, DmaSpace, MapRefusal, MapRequest, UnmapError};
use super::{PAGE, map, request, shortly, space};

fn refusal(space: &DmaSpace, request: MapRequest) -> (MapRefusal, Errno) {
    let error = space.map(request).unwrap_err();
    assert_eq!(
        space.dma().check(error.iova, 1, Access::Read),
        Err(DmaError::NotMapped(error.iova))
    );
    (error.reason, error.errno())
}

/// The same file, opened anew.
fn reopen(file: &File, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
}

#[test]
fn what_is_not_a_regular_file_is_not_guest_memory() {
    let space = space();
    let (pipe, _other) = std::io::pipe().unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let zero = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/zero")
        .unwrap();
    let directory = File::open("/").unwrap();
    let wrong: [OwnedFd; 5] = [pipe.into(), socket.into(), eventfd, zero.into(), directory.into()];
    for fd in wrong {
        let refused = refusal(&space, request(0, PAGE, Access::Read, fd));
        assert_eq!(refused, (MapRefusal::NotRegular, Errno::INVAL));
    }
}

#[test]
fn a_file_on_another_filesystem_is_refused_unless_it_is_allowed() {
    let file = || {
        let file = File::open("/proc/self/exe").unwrap();
        request(0, PAGE, Access::Read, file)
    };
    let (reason, errno) = refusal(&space(), file());
    assert!(matches!(reason, MapRefusal::FileSystem(_)), "{reason}");
    assert_eq!(errno, Errno::INVAL);
    let tracker = std::sync::Arc::new(pagetrail_tracker::SoftwareTracker::new().unwrap());
    DmaSpace::new(tracker, AllowedFiles::Any, crate::guest::Share::of_the_rest())
        .map(file())
        .unwrap();
}

#[test]
fn a_descriptor_that_does_not_allow_the_access_is_refused() {
    let space = space();
    let file = memfd(PAGE);
    let cases = [
        (OFlags::RDONLY, Access::Write, Errno::ACCESS),
        (OFlags::WRONLY, Access::Write, Errno::ACCESS),
        (OFlags::WRONLY, Access::Read, Errno::ACCESS),
        (OFlags::PATH, Access::Read, Errno::BADF),
    ];
    for (flags, access, errno) in cases {
        let refused = refusal(&space, request(0, PAGE, access, reopen(&file, flags)));
        assert_eq!(
            refused,
            (MapRefusal::System(errno), errno),
            "{flags:?}, {access:?}"
        );
    }
    let sealed = memfd(PAGE);
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    assert_eq!(
        refusal(&space, request(0, PAGE, Access::Write, sealed)).1,
        Errno::PERM
    );
    let read_only = request(0, PAGE, Access::Read, reopen(&file, OFlags::RDONLY));
    space.map(read_only).unwrap();
}

#[test]
fn a_mapping_is_as_long_as_its_file_at_most() {
    let space = space();
    let too_long = request(0, 2 * PAGE, Access::Write, memfd(2 * PAGE - 1));
    let reason = MapRefusal::TooShort {
        size: 2 * PAGE - 1,
        end: 2 * PAGE,
    };
    assert_eq!(refusal(&space, too_long), (reason, Errno::INVAL));
    let beyond = MapRequest {
        offset: 2 * PAGE,
        ..request(0, PAGE, Access::Write, memfd(2 * PAGE))
    };
    assert_eq!(refusal(&space, beyond).1, Errno::INVAL);
    let far_beyond = MapRequest {
        offset: u64::MAX - 4095,
        ..request(0, PAGE, Access::Write, memfd(2 * PAGE))
    };
    assert_eq!(refusal(&space, far_beyond).1, Errno::INVAL);
    let last_page = MapRequest {
        offset: PAGE,
        ..request(0, PAGE, Access::Write, memfd(2 * PAGE))
    };
    space.map(last_page).unwrap();
}

#[test]
fn a_mapping_consists_of_whole_pages() {
    let space = space();
    let odd = |iova, size, offset| MapRequest {
        offset,
        ..request(iova, size, Access::Write, memfd(8 * PAGE))
    };
    for request in [
        odd(1, PAGE, 0),
        odd(0, PAGE + 512, 0),
        odd(0, PAGE, 8),
        odd(0x800, 0x800, 0x800),
    ] {
        assert_eq!(refusal(&space, request), (MapRefusal::Misaligned, Errno::INVAL));
    }
    assert_eq!(refusal(&space, odd(0, 0, 0)), (MapRefusal::Empty, Errno::INVAL));
}

#[test]
fn mappings_do_not_overlap() {
    let space = space();
    map(&space, 0x10000, 4 * PAGE);
    for (iova, pages) in [(0x10000, 4), (0xf000, 2), (0x13000, 2), (0x11000, 1), (0xf000, 8)] {
        let error = space
            .map(request(iova, pages * PAGE, Access::Write, memfd(pages * PAGE)))
            .unwrap_err();
        assert_eq!(
            (error.reason, error.errno()),
            (MapRefusal::Overlap(0x10000), Errno::EXIST)
        );
    }
    map(&space, 0xf000, PAGE);
    map(&space, 0x14000, PAGE);
}

#[test]
fn only_a_whole_mapping_is_unmapped() {
    let space = space();
    map(&space, 0x10000, 4 * PAGE);
    map(&space, 0x14000, PAGE);
    for (iova, size) in [
        (0x10000, PAGE),
        (0x11000, PAGE),
        (0x10000, 5 * PAGE),
        (0x10000, 0),
        (0, u64::MAX),
        (u64::MAX, 1),
    ] {
        let error = space.unmap(iova, size, shortly()).unwrap_err();
        assert_eq!(error, UnmapError::NotMapped { iova, size });
        assert_eq!((error.errno(), error.is_timeout()), (Errno::NOENT, false));
    }
    space.unmap(0x10000, 4 * PAGE, shortly()).unwrap();
    assert_eq!(
        space.dma().check(0x10000, 1, Access::Read),
        Err(DmaError::NotMapped(0x10000))
    );
    space.dma().check(0x14000, PAGE, Access::Read).unwrap();
    space.unmap_all(shortly()).unwrap();
    assert_eq!(
        space.dma().check(0x14000, 1, Access::Read),
        Err(DmaError::NotMapped(0x14000))
    );
    space.unmap_all(shortly()).unwrap();
}
