//! The functions that libvfio-user calls.
//!
//! Each finds the [`Handler`] behind the context's private pointer, calls it with panics caught, and says the
//! result in C's way: a count or zero, or −1 with `errno`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use vfio_user_sys as sys;

use super::message::{Answer, Message};
use super::{Handler, context::Shared};
use crate::device::Bar;

const PASS: c_int = sys::VFU_MSG_PASS.cast_signed();
const HANDLED: c_int = sys::VFU_MSG_HANDLED.cast_signed();

/// A BAR's access function, as C calls it.
type BarAccess = unsafe extern "C" fn(*mut sys::vfu_ctx_t, *mut c_char, usize, sys::loff_t, bool) -> isize;

/// The hook: every message, received whole.
pub(super) unsafe extern "C" fn message(
    ctx: *mut sys::vfu_ctx_t,
    header: *const sys::vfio_user_header,
    input: *mut sys::vfu_msg_in_t,
    output: *mut sys::vfu_msg_out_t,
) -> c_int {
    // SAFETY: the library gives a readable header, which nothing changes during the call.
    let header = unsafe { &*header };
    // SAFETY: the library gives the message, which nothing else uses during the call.
    let input = unsafe { &mut *input };
    // SAFETY: as above; the message does not outlive this call.
    let mut message = unsafe { Message::new(header.cmd, header.flags, input) };
    let (reply, file) = match with_handler(ctx, |handler| handler.message(&mut message)) {
        Ok(Answer::Pass) => return PASS,
        Ok(Answer::Reply(reply)) => (reply, None),
        Ok(Answer::WithFile(reply, file)) => (reply, Some(file)),
        Err(error) => return fail(error),
    };
    // SAFETY: `output` is the library's and all zero.
    let output = unsafe { &mut *output };
    if !reply.is_empty() {
        let Some(data) = copy_out(&reply) else {
            return fail(Errno::NOMEM);
        };
        (output.data, output.len) = (data, reply.len());
    }
    if let Some(file) = file {
        let Some(fds) = copy_out(&file.as_raw_fd().to_ne_bytes()) else {
            return fail(Errno::NOMEM);
        };
        (output.fds, output.nr_fds) = (fds.cast(), 1);
        shared(ctx).lend(file);
    }
    HANDLED
}

/// A client's version, before it is answered.
pub(super) unsafe extern "C" fn version(
    ctx: *mut sys::vfu_ctx_t,
    client: *const c_char,
    capabilities: *mut *mut c_char,
) -> c_int {
    let client = if client.is_null() {
        None
    } else {
        // SAFETY: the library gives a NUL-terminated string that lives as long as the call.
        match unsafe { CStr::from_ptr(client) }.to_str() {
            Ok(text) => Some(text),
            Err(_) => return fail(Errno::INVAL),
        }
    };
    let announced = match with_handler(ctx, |handler| handler.version(client)) {
        Ok(Some(announced)) => announced,
        Ok(None) => return 0,
        Err(error) => return fail(error),
    };
    let Ok(announced) = CString::new(announced) else {
        return fail(Errno::INVAL);
    };
    let Some(data) = copy_out(announced.as_bytes_with_nul()) else {
        return fail(Errno::NOMEM);
    };
    // SAFETY: `capabilities` is the library's, and takes over what `vfu_msg_alloc` gave.
    unsafe { *capabilities = data.cast() };
    0
}

/// Access to one BAR. C's callback does not say which BAR is meant, so there is one function for each.
unsafe extern "C" fn bar_access<const BAR: usize>(
    ctx: *mut sys::vfu_ctx_t,
    buffer: *mut c_char,
    count: usize,
    offset: sys::loff_t,
    is_write: bool,
) -> isize {
    let bar = Bar::ALL[BAR];
    let offset = offset.cast_unsigned();
    let buffer = buffer.cast::<u8>();
    let result = with_handler(ctx, |handler| {
        if is_write {
            // SAFETY: the library gives `count` readable bytes for the time of the call.
            handler.write_bar(bar, offset, unsafe { std::slice::from_raw_parts(buffer, count) })
        } else {
            // SAFETY: the library gives `count` zeroed, writable bytes for the time of the call.
            handler.read_bar(bar, offset, unsafe {
                std::slice::from_raw_parts_mut(buffer, count)
            })
        }
    });
    match result {
        Ok(()) => count.cast_signed(),
        Err(error) => fail(error) as isize,
    }
}

/// The access function of a BAR.
pub(super) fn bar_callback(bar: Bar) -> BarAccess {
    match bar {
        Bar::Bar0 => bar_access::<0>,
        Bar::Bar1 => bar_access::<1>,
        Bar::Bar2 => bar_access::<2>,
        Bar::Bar3 => bar_access::<3>,
        Bar::Bar4 => bar_access::<4>,
        Bar::Bar5 => bar_access::<5>,
    }
}

/// The library's log, into ours. What it warns of is the client's doing, so it is limited in rate.
pub(super) unsafe extern "C" fn log(_ctx: *mut sys::vfu_ctx_t, level: c_int, text: *const c_char) {
    // SAFETY: the library gives a NUL-terminated string that lives as long as the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim_end();
    if level <= libc::LOG_WARNING {
        tracing::warn!(target: "libvfio-user", "{text}");
    } else {
        tracing::debug!(target: "libvfio-user", "{text}");
    }
}

fn with_handler<T>(
    ctx: *mut sys::vfu_ctx_t,
    call: impl FnOnce(&dyn Handler) -> Result<T, Errno>,
) -> Result<T, Errno> {
    catch_unwind(AssertUnwindSafe(|| call(shared(ctx).handler()))).unwrap_or_else(|_| {
        tracing::error!("internal error: a message handler panicked; the client gets EIO");
        Err(Errno::IO)
    })
}

/// What belongs to a context whose callback this is.
fn shared<'a>(ctx: *mut sys::vfu_ctx_t) -> &'a Shared {
    // SAFETY: the context is live during its callbacks.
    let private = unsafe { sys::vfu_get_private(ctx) };
    // SAFETY: the private pointer was set by `Context::new` to a `Shared` that outlives the context, which outlives what callbacks
    // borrow, and it is only ever borrowed shared.
    unsafe { &*private.cast::<Shared>() }
}

fn copy_out(bytes: &[u8]) -> Option<*mut c_void> {
    // SAFETY: an allocation, checked below.
    let data = unsafe { sys::vfu_msg_alloc(bytes.len()) };
    if data.is_null() {
        return None;
    }
    // SAFETY: `data` has room for `bytes.len()` bytes and is new.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast(), bytes.len()) };
    Some(data)
}

fn fail(error: Errno) -> c_int {
    // SAFETY: takes nothing, and gives the location of this thread's `errno`.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's `errno`, which nothing else uses now.
    unsafe { errno.write(error.raw_os_error()) };
    -1
}
