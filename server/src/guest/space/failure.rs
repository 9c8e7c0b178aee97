//! Memory that failed: said once.

use std::fmt;

use parking_lot::Mutex;

type Callback = Box<dyn Fn() + Send + Sync>;

/// Whether memory has failed, and who wants to know.
pub(super) struct Failure(Mutex<State>);

enum State {
    Intact(Option<Callback>),
    Failed,
}

impl Failure {
    /// Calls `callback` when memory fails, or now if it has.
    pub(super) fn on_failure(&self, callback: Callback) {
        let mut state = self.0.lock();
        if let State::Intact(slot) = &mut *state {
            *slot = Some(callback);
            return;
        }
        drop(state);
        callback();
    }

    /// Memory at `iova` has failed.
    pub(super) fn report(&self, iova: u64) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Failed);
        let State::Intact(callback) = before else {
            return;
        };
        tracing::error!(
            iova = format_args!("{iova:#x}"),
            "guest memory failed: its file was truncated, or the host has no page for it"
        );
        if let Some(callback) = callback {
            callback();
        }
    }
}

impl Default for Failure {
    fn default() -> Self {
        Self(Mutex::new(State::Intact(None)))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_failed = matches!(*self.0.lock(), State::Failed);
        f.debug_struct("Failure")
            .field("has_failed", &has_failed)
            .finish()
    }
}
