//! One connection's context.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use vfio_user_sys as sys;

use super::{Handler, callbacks, capabilities};
use crate::device::{Bar, BarSpec, DeviceSpec};

/// Header type of a device that is no bridge (Linux `pci_regs.h`).
const PCI_HEADER_TYPE_NORMAL: c_int = 0;

/// Bytes of conventional config space (Linux `pci_regs.h`).
const PCI_CFG_SPACE_SIZE: usize = 256;

const MEMORY_BAR: c_int = (sys::VFU_REGION_FLAG_RW | sys::VFU_REGION_FLAG_MEM).cast_signed();

/// A libvfio-user context for one connection.
pub(crate) struct Context {
    raw: NonNull<sys::vfu_ctx_t>,
    // The context's private pointer refers to it, so it is boxed, and dropped after the context.
    _shared: Box<Shared>,
}

/// What the context's private pointer refers to.
pub(super) struct Shared {
    handler: Box<dyn Handler>,
    /// What the last reply carries: the library does not close it, and has sent it when the next one is made.
    lent: RefCell<Option<OwnedFd>>,
}

impl Shared {
    pub(super) fn handler(&self) -> &dyn Handler {
        &*self.handler
    }

    /// Keeps a file open until the reply that carries it has gone.
    pub(super) fn lend(&self, file: OwnedFd) {
        self.lent.replace(Some(file));
    }
}

/// A handle to end a connection from another thread.
#[derive(Debug)]
pub(crate) struct Connection(OwnedFd);

impl Connection {
    /// A handle for the connection behind `socket`.
    pub(crate) fn of(socket: &OwnedFd) -> std::io::Result<Self> {
        socket.try_clone().map(Self)
    }

    /// Whether either end has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().is_empty()
    }

    /// Whether the client has taken everything that was sent to it. `false` also when that cannot be told, as after its end.
    pub(crate) fn is_read(&self) -> bool {
        let mut unread: c_int = 0;
        // SAFETY: the descriptor is open, and the request (SIOCOUTQ of a socket) writes one `int`.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
        // What a client that leaves has not read goes with it, and looks as if it were read: so this is looked at last.
        result == 0 && unread == 0 && !self.is_closed()
    }

    /// Takes no further messages: the thread in [`Context::run`] answers those that have come, and returns.
    pub(crate) fn drain(&self) {
        // An error means that it has ended already.
        let _ = rustix::net::shutdown(self.0.as_fd(), Shutdown::Read);
    }

    /// Ends the connection, and answers nothing more: the thread in [`Context::run`] returns soon.
    pub(crate) fn close(&self) {
        // An error means that it has ended already.
        let _ = rustix::net::shutdown(self.0.as_fd(), Shutdown::Both);
    }
}

/// A step of setting up a context, or running it, failed.
#[derive(Debug, thiserror::Error)]
#[error("libvfio-user: {step}: {errno}")]
pub(crate) struct ContextError {
    step: &'static str,
    /// What the library said.
    pub(crate) errno: Errno,
}

impl Context {
    /// A context for a device. `bar_files` back the mappable areas of its BARs and must outlive the context.
    pub(crate) fn new(
        spec: &DeviceSpec,
        bar_files: &[(Bar, OwnedFd)],
        handler: Box<dyn Handler>,
    ) -> Result<Self, ContextError> {
        let shared = Box::new(Shared {
            handler,
            lent: RefCell::default(),
        });
        let private = std::ptr::from_ref::<Shared>(&shared).cast_mut().cast::<c_void>();
        // SAFETY: no path is needed without a listening socket; `private` lives as long as the context.
        let raw = unsafe {
            sys::vfu_create_ctx(
                sys::VFU_TRANS_SOCK,
                std::ptr::null(),
                sys::LIBVFIO_USER_FLAG_ATTACH_FD.cast_signed(),
                private,
                sys::VFU_DEV_TYPE_PCI,
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| last_error("create a context"))?;
        let context = Self { raw, _shared: shared };
        context.set_callbacks()?;
        context.set_identity(spec)?;
        context.add_capabilities(spec)?;
        for bar in &spec.bars {
            let file = bar_files
                .iter()
                .find(|(of, _)| *of == bar.bar)
                .map(|(_, file)| file);
            context.add_bar(bar, file)?;
        }
        context.set_irq_counts(spec)?;
        // SAFETY: the context is live.
        check("realize", unsafe { sys::vfu_realize_ctx(context.raw()) })?;
        Ok(context)
    }

    /// Takes over a connection: negotiates the version. `deadline` is how long a message may take from its first byte to its last,
    /// VERSION from now on, and how long a reply may take to be read.
    pub(crate) fn attach(&self, socket: OwnedFd, deadline: Duration) -> Result<(), ContextError> {
        let millis = deadline.as_millis() as u32;
        // SAFETY: the context is live and not attached.
        check("deadlines", unsafe {
            sys::vfu_setup_deadlines(self.raw(), millis, millis)
        })?;
        // SAFETY: the context is live; the library takes the descriptor in every case.
        check("negotiate", unsafe {
            sys::vfu_attach_fd(self.raw(), socket.into_raw_fd())
        })
    }

    /// Serves the connection until it ends.
    pub(crate) fn run(&self) -> Result<(), ContextError> {
        loop {
            // SAFETY: the context is live and used by this thread alone (`Context` is not `Send`).
            let result = unsafe { sys::vfu_run_ctx(self.raw()) };
            if result >= 0 {
                continue;
            }
            match last_error("serve").errno {
                Errno::INTR => {}
                Errno::NOTCONN => return Ok(()),
                errno => return Err(ContextError { step: "serve", errno }),
            }
        }
    }

    fn raw(&self) -> *mut sys::vfu_ctx_t {
        self.raw.as_ptr()
    }

    fn set_callbacks(&self) -> Result<(), ContextError> {
        // SAFETY: the context is live, and the function has the type that the library declares.
        check("log", unsafe {
            sys::vfu_setup_log(self.raw(), Some(callbacks::log), libc::LOG_INFO)
        })?;
        // SAFETY: as above.
        check("hook", unsafe {
            sys::vfu_setup_msg_cb(self.raw(), Some(callbacks::message))
        })?;
        // SAFETY: as above.
        check("version", unsafe {
            sys::vfu_setup_version_cb(self.raw(), Some(callbacks::version))
        })
    }

    fn set_identity(&self, spec: &DeviceSpec) -> Result<(), ContextError> {
        let (id, class) = (spec.id, spec.class);
        // SAFETY: the context is live and has no config space.
        check("config space", unsafe {
            sys::vfu_pci_init(
                self.raw(),
                sys::VFU_PCI_TYPE_CONVENTIONAL,
                PCI_HEADER_TYPE_NORMAL,
                c_int::from(spec.revision),
            )
        })?;
        // SAFETY: the context has a config space.
        unsafe {
            sys::vfu_pci_set_id(
                self.raw(),
                id.vendor,
                id.device,
                id.subsystem_vendor,
                id.subsystem,
            );
        }
        // SAFETY: as above.
        unsafe { sys::vfu_pci_set_class(self.raw(), class.base, class.sub, class.interface) };
        // SAFETY: the context is live; no areas, no file.
        check("config region", unsafe {
            sys::vfu_setup_region(
                self.raw(),
                sys::VFU_PCI_DEV_CFG_REGION_IDX.cast_signed(),
                PCI_CFG_SPACE_SIZE,
                None,
                sys::VFU_REGION_FLAG_RW.cast_signed(),
                std::ptr::null_mut(),
                0,
                -1,
                0,
            )
        })
    }

    fn add_capabilities(&self, spec: &DeviceSpec) -> Result<(), ContextError> {
        self.add_capability(capabilities::power_management())?;
        if spec.irqs.msi > 0 {
            self.add_capability(capabilities::msi(spec.irqs))?;
        }
        if let Some(msix) = spec.irqs.msix {
            self.add_capability(capabilities::msix(msix))?;
        }
        Ok(())
    }

    fn add_capability(&self, mut bytes: Vec<u8>) -> Result<(), ContextError> {
        // SAFETY: `bytes` is a whole capability of a kind that the library knows the size of.
        let offset = unsafe { sys::vfu_pci_add_capability(self.raw(), 0, 0, bytes.as_mut_ptr().cast()) };
        check("capability", if offset < 0 { -1 } else { 0 })
    }

    fn add_bar(&self, spec: &BarSpec, file: Option<&OwnedFd>) -> Result<(), ContextError> {
        let mut areas: Vec<sys::iovec> = spec
            .mmap
            .iter()
            .map(|area| sys::iovec {
                iov_base: area.offset as *mut c_void,
                iov_len: area.len as usize,
            })
            .collect();
        let (areas_ptr, area_count, fd) = match file {
            Some(file) if !areas.is_empty() => (areas.as_mut_ptr(), areas.len() as u32, file.as_raw_fd()),
            _ => (std::ptr::null_mut(), 0, -1),
        };
        // SAFETY: the library copies the areas; the descriptor stays open as long as the context (see `new`).
        check("BAR", unsafe {
            sys::vfu_setup_region(
                self.raw(),
                spec.bar as c_int,
                spec.size as usize,
                Some(callbacks::bar_callback(spec.bar)),
                MEMORY_BAR,
                areas_ptr,
                area_count,
                fd,
                0,
            )
        })
    }

    fn set_irq_counts(&self, spec: &DeviceSpec) -> Result<(), ContextError> {
        let counts = [
            (sys::VFU_DEV_INTX_IRQ, spec.irqs.intx),
            (sys::VFU_DEV_MSI_IRQ, spec.irqs.msi),
            (
                sys::VFU_DEV_MSIX_IRQ,
                spec.irqs.msix.map_or(0, |msix| msix.vectors),
            ),
        ];
        for (kind, count) in counts {
            // SAFETY: the context is live.
            check("interrupts", unsafe {
                sys::vfu_setup_device_nr_irqs(self.raw(), kind, count)
            })?;
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live and not used again; its callbacks still find `_shared`, which is dropped later.
        unsafe { sys::vfu_destroy_ctx(self.raw()) };
    }
}

fn check(step: &'static str, result: c_int) -> Result<(), ContextError> {
    if result < 0 { Err(last_error(step)) } else { Ok(()) }
}

fn last_error(step: &'static str) -> ContextError {
    let errno = std::io::Error::last_os_error();
    ContextError {
        step,
        errno: Errno::from_io_error(&errno).unwrap_or(Errno::IO),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::*;
    use crate::vfu::{Answer, Message};

    /// Has every message wait until the test lets it go on.
    struct Held {
        entered: Sender<()>,
        release: Receiver<()>,
    }

    impl Handler for Held {
        fn version(&self, _client: Option<&str>) -> Result<Option<String>, Errno> {
            Ok(None)
        }

        fn message(&self, _message: &mut Message<'_>) -> Result<Answer, Errno> {
            self.entered.send(()).ok();
            self.release.recv().ok();
            Ok(Answer::Reply(Vec::new()))
        }

        fn read_bar(&self, _bar: Bar, _offset: u64, _data: &mut [u8]) -> Result<(), Errno> {
            Err(Errno::IO)
        }

        fn write_bar(&self, _bar: Bar, _offset: u64, _data: &[u8]) -> Result<(), Errno> {
            Err(Errno::IO)
        }
    }

    /// A message of 16 bytes and a payload.
    fn message(command: u16, payload: &[u8]) -> Vec<u8> {
        let mut message = [1_u16, command].map(u16::to_ne_bytes).concat();
        message.extend((16 + payload.len() as u32).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(payload);
        message
    }

    #[test]
    fn a_message_that_is_being_handled_when_the_server_stops_is_answered() {
        let (mut client, socket) = UnixStream::pair().unwrap();
        let (entered, has_entered) = bounded(1);
        let (release, released) = bounded(1);
        let socket = OwnedFd::from(socket);
        let connection = Connection::of(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let handler = Held {
                entered,
                release: released,
            };
            let context = Context::new(&DeviceSpec::none(), &[], Box::new(handler)).unwrap();
            context.attach(socket, Duration::from_secs(5)).unwrap();
            context.run()
        });
        client.write_all(&message(1, &[0, 0, 1, 0])).unwrap();
        let mut header = [0; 16];
        client.read_exact(&mut header).unwrap();
        let len = u32::from_ne_bytes(header[4..8].try_into().unwrap()) as usize - header.len();
        client.read_exact(&mut vec![0; len]).unwrap();

        client.write_all(&message(13, &[])).unwrap();
        has_entered.recv().unwrap();
        connection.drain();
        release.send(()).unwrap();
        client.read_exact(&mut header).expect("an answer");
        server.join().unwrap().expect("the end of the connection");
    }
}
