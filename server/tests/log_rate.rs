//! The rate limit in the process's global subscriber, as the program installs it. One test: there is one such subscriber.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use pagetrail::ratelimit::{Limits, RateLimit};
use parking_lot::Mutex;
use tracing_subscriber::prelude::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock())
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }
}

fn complain(device: &str) {
    tracing::warn!(device, "nonsense from the guest");
}

#[test]
fn a_noisy_device_cannot_fill_the_log_or_hide_another() {
    let log = Log::default();
    let writer = log.clone();
    let limits = Limits {
        messages: 3,
        period: Duration::from_millis(200),
    };
    tracing_subscriber::registry()
        .with(RateLimit::new(limits))
        .with(
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(move || writer.clone()),
        )
        .init();

    for _ in 0..1000 {
        complain("noisy");
        tracing::debug!(device = "noisy", "asked for");
    }
    complain("quiet");
    assert_eq!(log.lines_with(r#"guest device="noisy""#), 3);
    assert_eq!(log.lines_with(r#"guest device="quiet""#), 1);
    assert_eq!(
        log.lines_with("asked for"),
        1000,
        "what is asked for is not limited"
    );

    std::thread::sleep(limits.period);
    complain("noisy");
    assert_eq!(log.lines_with(r#"guest device="noisy""#), 4);
    assert_eq!(log.lines_with("dropped=997"), 1, "what was dropped is counted");
}
