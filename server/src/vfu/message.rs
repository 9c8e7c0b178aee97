//! A received message and the answer to it.

use std::os::fd::{FromRawFd, OwnedFd};

use vfio_user_sys as sys;

/// A message that was received whole.
pub(crate) struct Message<'a> {
    /// The command, `VFIO_USER_*`.
    pub(crate) command: u16,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
    /// Whether the client gets an answer.
    pub(crate) reply: Reply,
    fds: &'a mut [libc::c_int],
}

/// Whether the client gets an answer, good or bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It does.
    Sent,
    /// It asked for none.
    Withheld,
}

/// What becomes of a message.
pub(crate) enum Answer {
    /// libvfio-user handles it.
    Pass,
    /// The reply's payload.
    Reply(Vec<u8>),
    /// The reply's payload, and a file that goes with it.
    WithFile(Vec<u8>, OwnedFd),
}

impl<'a> Message<'a> {
    /// Wraps what the hook was given.
    ///
    /// # Safety
    ///
    /// `input` is the hook's argument, and nothing else refers to what it points at for `'a`. Its descriptors are open and
    /// owned by the message.
    pub(super) unsafe fn new(command: u16, flags: u32, input: &'a mut sys::vfu_msg_in_t) -> Self {
        let payload = if input.data.is_null() {
            &[]
        } else {
            // SAFETY: the library gives `len` readable bytes at `data` for the time of the call.
            unsafe { std::slice::from_raw_parts(input.data.cast::<u8>(), input.len) }
        };
        let fds = if input.fds.is_null() {
            &mut []
        } else {
            // SAFETY: likewise for `nr_fds` descriptors, which the callback may replace.
            unsafe { std::slice::from_raw_parts_mut(input.fds, input.nr_fds) }
        };
        let reply = if flags & sys::VFIO_USER_F_NO_REPLY == 0 {
            Reply::Sent
        } else {
            Reply::Withheld
        };
        Self {
            command,
            payload,
            reply,
            fds,
        }
    }

    /// The file descriptors that came with the message, in order. Those not taken are closed by the library.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        let taken = self.fds.iter_mut().map(|slot| std::mem::replace(slot, -1));
        // SAFETY: the message owned each descriptor, and no longer knows it.
        taken
            .filter(|fd| *fd >= 0)
            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
            .collect()
    }
}
