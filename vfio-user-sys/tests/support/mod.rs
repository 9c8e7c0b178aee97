//! A device on the raw bindings, served by a thread of its own, and the client's end of its socket.

// The bindings have nothing safe.
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

use std::ffi::{CStr, c_char, c_int};
use std::io::{self, Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vfio_user_sys as sys;

/// What the message callback does with these is in [`on_message`].
pub(crate) const ECHO: u16 = 19;
pub(crate) const REFUSE: u16 = 20;
/// Answered with [`LARGE_REPLY`] bytes.
pub(crate) const LARGE: u16 = 21;
pub(crate) const LARGE_REPLY: usize = 1 << 20;
pub(crate) const GET_INFO: u16 = 4;

const VERSION: u16 = 1;
const HEADER: usize = 16;
const ERROR_FLAG: u32 = 0x20;

/// Limits in milliseconds; 0 is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Deadlines {
    pub(crate) receive: u32,
    pub(crate) send: u32,
}

/// How serving a client ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `vfu_attach_fd` failed with this errno.
    NotAttached(i32),
    /// `vfu_run_ctx` failed with this errno.
    Ran(i32),
}

/// A thread that serves one client.
pub(crate) struct Server {
    thread: JoinHandle<End>,
    echoes: Arc<AtomicU32>,
}

impl Server {
    /// Serves the other end of the stream that is returned.
    pub(crate) fn start(deadlines: Deadlines) -> (Self, UnixStream) {
        let (client, server) = UnixStream::pair().expect("a socket pair");
        // A test that waits in vain must fail.
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a read timeout");
        let echoes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&echoes);
        let thread = thread::spawn(move || serve(server, deadlines, &counter));
        (Self { thread, echoes }, client)
    }

    /// Messages with command [`ECHO`] that came to the callback.
    pub(crate) fn echoes(&self) -> u32 {
        self.echoes.load(Ordering::SeqCst)
    }

    pub(crate) fn end(self) -> End {
        self.thread.join().expect("the server does not panic")
    }
}

fn serve(socket: UnixStream, deadlines: Deadlines, echoes: &AtomicU32) -> End {
    let private = ptr::from_ref(echoes).cast_mut().cast();
    // SAFETY: the context lives until the end of this function and is used by this thread alone; `echoes` outlives it.
    unsafe {
        let flags = sys::LIBVFIO_USER_FLAG_ATTACH_FD.cast_signed();
        let ctx = sys::vfu_create_ctx(
            sys::VFU_TRANS_SOCK,
            ptr::null(),
            flags,
            private,
            sys::VFU_DEV_TYPE_PCI,
        );
        assert!(!ctx.is_null());
        assert_eq!(sys::vfu_pci_init(ctx, sys::VFU_PCI_TYPE_CONVENTIONAL, 0, 0), 0);
        assert_eq!(sys::vfu_setup_msg_cb(ctx, Some(on_message)), 0);
        assert_eq!(sys::vfu_setup_version_cb(ctx, Some(on_version)), 0);
        assert_eq!(
            sys::vfu_setup_deadlines(ctx, deadlines.receive, deadlines.send),
            0
        );
        assert_eq!(sys::vfu_realize_ctx(ctx), 0);
        let end = if sys::vfu_attach_fd(ctx, socket.into_raw_fd()) < 0 {
            End::NotAttached(errno())
        } else {
            assert_eq!(sys::vfu_run_ctx(ctx), -1);
            End::Ran(errno())
        };
        sys::vfu_destroy_ctx(ctx);
        end
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().expect("an errno")
}

fn fail(errno: i32) -> c_int {
    // SAFETY: it is this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

unsafe extern "C" fn on_message(
    ctx: *mut sys::vfu_ctx_t,
    header: *const sys::vfio_user_header,
    input: *mut sys::vfu_msg_in_t,
    output: *mut sys::vfu_msg_out_t,
) -> c_int {
    // SAFETY: the library's pointers are good for the call, the private one for the context's life, and the reply's memory is
    // as large as the payload that is copied to it.
    unsafe {
        match (*header).cmd {
            ECHO => {
                (*sys::vfu_get_private(ctx).cast::<AtomicU32>()).fetch_add(1, Ordering::SeqCst);
                (*output).len = (*input).len;
                (*output).data = sys::vfu_msg_alloc((*input).len);
                ptr::copy_nonoverlapping((*input).data.cast::<u8>(), (*output).data.cast(), (*input).len);
                sys::VFU_MSG_HANDLED.cast_signed()
            }
            LARGE => {
                (*output).len = LARGE_REPLY;
                (*output).data = sys::vfu_msg_alloc(LARGE_REPLY);
                sys::VFU_MSG_HANDLED.cast_signed()
            }
            REFUSE => fail(libc::EXDEV),
            _ => sys::VFU_MSG_PASS.cast_signed(),
        }
    }
}

unsafe extern "C" fn on_version(
    _: *mut sys::vfu_ctx_t,
    json: *const c_char,
    capabilities: *mut *mut c_char,
) -> c_int {
    const ADDED: &CStr = c"{\"added\":true,\"max_msg_fds\":5,\"max_data_xfer_size\":null}";
    if json.is_null() {
        return 0;
    }
    // SAFETY: the library's strings end in NUL, and the memory is as large as what is copied to it.
    unsafe {
        if CStr::from_ptr(json)
            .to_bytes()
            .windows(6)
            .any(|word| word == b"refuse")
        {
            return fail(libc::EBUSY);
        }
        let len = ADDED.to_bytes_with_nul().len();
        *capabilities = sys::vfu_msg_alloc(len).cast();
        ptr::copy_nonoverlapping(ADDED.as_ptr(), *capabilities, len);
    }
    0
}

/// A message as it goes over the wire.
pub(crate) fn message(command: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER + payload.len()).expect("a small message");
    let mut bytes = Vec::new();
    bytes.extend(7u16.to_le_bytes());
    bytes.extend(command.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

/// VERSION with this JSON, or without any.
pub(crate) fn version(json: Option<&str>) -> Vec<u8> {
    let mut payload = vec![0, 0, 2, 0];
    if let Some(json) = json {
        payload.extend(json.as_bytes());
        payload.push(0);
    }
    message(VERSION, &payload)
}

/// Sends a message, and returns the payload of the reply or its errno.
pub(crate) fn call(client: &mut UnixStream, message: &[u8]) -> Result<Vec<u8>, u32> {
    client.write_all(message).expect("the message is sent");
    receive(client)
}

/// The payload of the next reply, or its errno.
pub(crate) fn receive(client: &mut UnixStream) -> Result<Vec<u8>, u32> {
    let mut header = [0; HEADER];
    client.read_exact(&mut header).expect("a reply");
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; word(4) as usize - HEADER];
    client.read_exact(&mut payload).expect("all of the reply");
    if word(8) & ERROR_FLAG != 0 {
        Err(word(12))
    } else {
        Ok(payload)
    }
}

/// Negotiates as a client without capabilities of its own.
pub(crate) fn negotiate(client: &mut UnixStream) {
    call(client, &version(None)).expect("the version is accepted");
}

/// Whether the server closed the connection, after whatever it had sent.
pub(crate) fn is_closed(client: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}
