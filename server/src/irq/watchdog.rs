//! Frees writes that a client blocks.
//!
//! A write to a client's eventfd blocks if the client fills the counter just before (see [`eventfd`](super::eventfd)).
//! One thread of the process looks at every eventfd a few times a second, and empties the counter of one that is full and
//! whose write has not ended since the last look. That loses no signal: the write that goes on then is one. A counter that
//! is not full is left alone: its write was not blocked but its thread held up, and the signal in it may be the one.
//!
//! The thread sleeps while there is no eventfd. It does nothing for a client that behaves.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::eventfd::Shared;

/// How long a write may block: at least once and at most twice this long.
const PERIOD: Duration = Duration::from_millis(250);

static WATCHED: Mutex<Watched> = Mutex::new(Watched {
    eventfds: Vec::new(),
    thread: Thread::NotStarted,
});
static NOT_EMPTY: Condvar = Condvar::new();

struct Watched {
    eventfds: Vec<Entry>,
    thread: Thread,
}

enum Thread {
    NotStarted,
    Started,
}

struct Entry {
    eventfd: Weak<Shared>,
    /// The write that was under way at the last look.
    seen: Option<u64>,
}

/// Looks after `eventfd` as long as it lives.
pub(super) fn watch(eventfd: &Arc<Shared>) -> std::io::Result<()> {
    let mut watched = WATCHED.lock();
    if let Thread::NotStarted = watched.thread {
        std::thread::Builder::new()
            .name("irq-watchdog".to_owned())
            .spawn(run)?;
        watched.thread = Thread::Started;
    }
    watched.eventfds.push(Entry {
        eventfd: Arc::downgrade(eventfd),
        seen: None,
    });
    NOT_EMPTY.notify_one();
    Ok(())
}

fn run() {
    loop {
        look();
        std::thread::sleep(PERIOD);
    }
}

/// Waits until there is an eventfd, and looks at each.
fn look() {
    let mut watched = WATCHED.lock();
    NOT_EMPTY.wait_while(&mut watched, |watched| watched.eventfds.is_empty());
    watched.eventfds.retain_mut(|entry| {
        let Some(eventfd) = entry.eventfd.upgrade() else {
            return false;
        };
        let under_way = eventfd.write_under_way();
        if under_way.is_some() && under_way == entry.seen && !eventfd.has_room() {
            let drained = eventfd.drain();
            tracing::warn!(?drained, "a client blocked one of its own interrupts");
        }
        entry.seen = under_way;
        true
    });
}
