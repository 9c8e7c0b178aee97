//! SIGTERM and SIGINT.

use std::io;

use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use super::launch::notify;
use crate::host::Stop;

/// The stop signals, caught but not acted upon yet: one that comes before there is a host to stop is not lost.
pub(super) struct StopSignals(Signals);

impl StopSignals {
    /// Catches the signals from here on.
    ///
    /// # Errors
    ///
    /// When the system has no descriptors left.
    pub(super) fn catch() -> io::Result<Self> {
        Signals::new([SIGTERM, SIGINT]).map(Self)
    }

    /// The first signal drains the host: messages being handled are answered and sockets removed. A second one ends the process at
    /// once, with the status of a process that the signal killed.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub(super) fn stop_on_arrival(self, stop: Stop) -> io::Result<()> {
        let Self(mut signals) = self;
        let wait = move || {
            let mut arrivals = signals.forever();
            let Some(first) = arrivals.next() else { return };
            tracing::info!(signal = signal_name(first), "stopping");
            notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
            stop.request();
            if let Some(second) = arrivals.next() {
                tracing::warn!(
                    signal = signal_name(second),
                    "stopped a second time: ending at once"
                );
                std::process::exit(128 + second);
            }
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(wait)?;
        Ok(())
    }
}
