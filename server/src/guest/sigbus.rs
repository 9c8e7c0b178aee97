//! Surviving guest memory that goes away: a file that its owner truncated, a huge page that is not to be had.
//!
//! The kernel answers an access to such a page with SIGBUS. The handler here puts an anonymous page in its
//! place and notes that the mapping has failed; the access goes on into memory that is nobody's, and its
//! maker finds out by [`Guard::has_fired`]. A SIGBUS anywhere else goes to whoever handled it before.
//!
//! The handler runs between any two instructions of a thread that holds a reference to the mapping, so it
//! takes no lock and calls nothing but `mmap`: mappings are listed in a fixed table of slots, each a sequence
//! lock. The slot of the mapping at hand cannot change meanwhile; a slot that changes belongs to another
//! mapping, and is passed over.
#![allow(unsafe_code)] // A signal handler, and mapping pages at a fixed address.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};

use memmap2::MmapRaw;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::error::MapRefusal;

/// Mappings that this process can have at a time: half of the memory areas that the kernel grants it.
pub(super) const SLOTS: usize = 32 * 1024;

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// Slots from this one on were never used.
static USED_END: AtomicUsize = AtomicUsize::new(0);

/// Slots below [`USED_END`] that are free.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// One guarded mapping.
struct Slot {
    /// Odd while the slot is being changed.
    sequence: AtomicUsize,
    start: AtomicUsize,
    /// Exclusive; equal to `start` in a free slot.
    end: AtomicUsize,
    has_fired: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            has_fired: AtomicBool::new(false),
        }
    }

    /// Called by the slot's owner alone.
    fn set(&self, start: usize, end: usize) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.has_fired.store(false, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The mapping's bounds if it holds `address`.
    fn holding(&self, address: usize) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let (start, end) = (
            self.start.load(Ordering::Relaxed),
            self.end.load(Ordering::Relaxed),
        );
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        let is_whole = before == after && before.is_multiple_of(2);
        (is_whole && start <= address && address < end).then_some((start, end))
    }
}

/// Guards a mapping until it is dropped, which must be before the memory is unmapped.
#[derive(Debug)]
pub(super) struct Guard {
    slot: usize,
}

/// Guards `memory`, unless too many mappings are guarded already.
pub(super) fn guard(memory: &MmapRaw) -> Result<Guard, MapRefusal> {
    install()?;
    let mut free = FREE.lock();
    let slot = free.pop().or_else(never_used).ok_or(MapRefusal::TooMany)?;
    let start = memory.as_ptr() as usize;
    TABLE[slot].set(start, start + memory.len());
    Ok(Guard { slot })
}

/// Takes a slot that was never used. Called with the lock of [`FREE`] held.
fn never_used() -> Option<usize> {
    let slot = USED_END.load(Ordering::Relaxed);
    if slot == SLOTS {
        return None;
    }
    USED_END.store(slot + 1, Ordering::Release);
    Some(slot)
}

impl Guard {
    /// Whether a page of the mapping was replaced.
    #[inline]
    pub(super) fn has_fired(&self) -> bool {
        // On the thread that faulted only the compiler can reorder; another one that reached the replaced page did so after
        // the handler had stored this and made its system call.
        compiler_fence(Ordering::SeqCst);
        TABLE[self.slot].has_fired.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.slot].set(0, 0);
        FREE.lock().push(self.slot);
    }
}

/// What handled SIGBUS before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once.
fn install() -> Result<(), Errno> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(());
    }
    // Known before the handler can run.
    let previous = exchange(None)?;
    PREVIOUS.get_or_init(|| previous);
    // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    exchange(Some(&action))?;
    *installed = true;
    Ok(())
}

/// Reads SIGBUS's disposition, and replaces it if there is a new one.
fn exchange(new: Option<&libc::sigaction>) -> Result<libc::sigaction, Errno> {
    // SAFETY: all-zero is a valid `sigaction`.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point to a `sigaction` or are null; the new handler has the signature that SA_SIGINFO asks
    // for.
    match unsafe { libc::sigaction(libc::SIGBUS, new, &raw mut old) } {
        0 => Ok(old),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler installed with SA_SIGINFO.
    let fault = unsafe { &*info };
    // Positive: from the kernel, about an access. Otherwise another process or thread sent it.
    if fault.si_code > 0 {
        // SAFETY: a SIGBUS from the kernel has an address.
        let address = unsafe { fault.si_addr() } as usize;
        if replace(address) {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// Puts an anonymous page in the place of the one at `address`, if that is guest memory.
fn replace(address: usize) -> bool {
    let used = USED_END.load(Ordering::Acquire).min(SLOTS);
    let Some((slot, (start, end))) = TABLE[..used]
        .iter()
        .find_map(|slot| Some((slot, slot.holding(address)?)))
    else {
        return false;
    };
    // Before the page is replaced: another thread may reach the new one without a fault of its own.
    slot.has_fired.store(true, Ordering::SeqCst);
    let page = address - address % super::file::PAGE as usize;
    // A part of a huge page cannot be replaced, nor any part when there are too many memory areas: then all
    // of it goes.
    map_anonymous(page, super::file::PAGE as usize) || map_anonymous(start, end - start)
}

fn map_anonymous(start: usize, len: usize) -> bool {
    // SAFETY: this thread's location for errno is always valid; `mmap` is a bare system call and changes
    // nothing else of the interrupted thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { errno.read() };
    // SAFETY: the pages belong to a mapping that the interrupted access holds a reference to, so they are this
    // process's guest memory and nothing else; slices of it stay valid, their contents are volatile anyway.
    let mapped = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    // SAFETY: as above.
    unsafe { errno.write(saved) };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without this module.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let handler = PREVIOUS
        .get()
        .map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        return die(signal);
    }
    let takes_info = PREVIOUS
        .get()
        .is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0);
    if takes_info {
        // SAFETY: a handler with SA_SIGINFO has this signature, and the arguments are the kernel's.
        let handler = unsafe {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)>(
                handler,
            )
        };
        return handler(signal, info, context);
    }
    // SAFETY: a handler without SA_SIGINFO has this signature.
    let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
    handler(signal);
}

/// The default: the signal is blocked while its handler runs, so this one ends the process when the handler
/// returns.
fn die(signal: libc::c_int) {
    // SAFETY: both are async-signal-safe and take plain numbers.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: as above.
    unsafe { libc::raise(signal) };
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use memmap2::MmapOptions;

    use super::super::testing::{Guest, memfd};

    /// Set in the process that is to end.
    const CHILD: &str = "PAGETRAIL_TEST_FAULT_ELSEWHERE";

    #[test]
    fn a_fault_elsewhere_still_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            return fault_elsewhere();
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "guest::sigbus::tests::a_fault_elsewhere_still_ends_the_process",
        ]);
        child.env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::null());
        assert_eq!(child.status().unwrap().signal(), Some(libc::SIGBUS));
    }

    fn fault_elsewhere() {
        let _guest = Guest::new(4096);
        let file = memfd(4096);
        let memory = MmapOptions::new().len(4096).map_raw(file.as_raw_fd()).unwrap();
        file.set_len(0).unwrap();
        // SAFETY: the address is mapped; that its page is gone is the point.
        let _ = unsafe { memory.as_ptr().read_volatile() };
    }
}
