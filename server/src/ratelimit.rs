//! Keeps what a guest can trigger from filling the log.
//!
//! A guest that writes nonsense into a register may do so a million times a second, and each time there is something to say. A
//! [`RateLimit`] layer lets each kind of message through a few times in a while, and says how many it has dropped. A kind is a
//! place in the source together with the value of the field `device`, so that one device's noise hides nothing of another's.
//!
//! DEBUG and TRACE are not limited: who asks for them wants all of them.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// A layer that drops messages which come too often.
///
/// It says so with a message of its own, so it belongs into the process's global subscriber, and not beside filters of single
/// layers.
#[derive(Debug)]
pub struct RateLimit {
    limits: Limits,
    kinds: Mutex<HashMap<Kind, Window>>,
}

/// How often is too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages of one kind in a period.
    pub messages: u32,
    /// Length of a period. It begins with a message.
    pub period: Duration,
}

impl Default for Limits {
    /// 10 messages in 10 seconds.
    fn default() -> Self {
        Self {
            messages: 10,
            period: Duration::from_secs(10),
        }
    }
}

impl RateLimit {
    /// A layer with these limits for every kind of message.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            kinds: Mutex::default(),
        }
    }

    fn verdict(&self, kind: Kind, now: Instant) -> Verdict {
        let mut kinds = self.kinds.lock();
        kinds
            .entry(kind)
            .or_insert_with(|| Window::new(now))
            .verdict(self.limits, now)
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        match self.verdict(Kind::of(event), Instant::now()) {
            Verdict::Pass => true,
            Verdict::Drop => false,
            Verdict::PassAfter { dropped } => {
                let target = event.metadata().target();
                tracing::warn!(
                    dropped,
                    of = target,
                    "messages like the next one came too often and were dropped"
                );
                true
            }
        }
    }
}

/// What counts as the same message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    callsite: Identifier,
    device: Option<String>,
}

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        let mut device = DeviceField(None);
        event.record(&mut device);
        Self {
            callsite: event.metadata().callsite(),
            device: device.0,
        }
    }
}

/// The value of an event's field `device`.
struct DeviceField(Option<String>);

impl Visit for DeviceField {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "device" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "device" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

/// One kind's current period.
#[derive(Debug)]
struct Window {
    begin: Instant,
    passed: u32,
    dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// The first one to pass after others were dropped.
    PassAfter {
        dropped: u64,
    },
    Drop,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            begin: now,
            passed: 0,
            dropped: 0,
        }
    }

    fn verdict(&mut self, limits: Limits, now: Instant) -> Verdict {
        if now.saturating_duration_since(self.begin) >= limits.period {
            let dropped = self.dropped;
            *self = Self {
                passed: 1,
                ..Self::new(now)
            };
            return if dropped == 0 {
                Verdict::Pass
            } else {
                Verdict::PassAfter { dropped }
            };
        }
        if self.passed < limits.messages {
            self.passed += 1;
            return Verdict::Pass;
        }
        self.dropped += 1;
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        messages: 3,
        period: Duration::from_secs(10),
    };

    #[test]
    fn a_few_messages_pass_and_the_rest_are_counted() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for _ in 0..3 {
            assert_eq!(window.verdict(LIMITS, start), Verdict::Pass);
        }
        for _ in 0..100 {
            assert_eq!(
                window.verdict(LIMITS, start + Duration::from_secs(9)),
                Verdict::Drop
            );
        }
        let later = start + LIMITS.period;
        assert_eq!(window.verdict(LIMITS, later), Verdict::PassAfter { dropped: 100 });
        assert_eq!(window.verdict(LIMITS, later), Verdict::Pass);
        assert_eq!(window.verdict(LIMITS, later), Verdict::Pass);
        assert_eq!(window.verdict(LIMITS, later), Verdict::Drop);
    }

    #[test]
    fn rare_messages_all_pass() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for second in 0..100 {
            let now = start + Duration::from_secs(second * 4);
            assert_eq!(
                window.verdict(LIMITS, now),
                Verdict::Pass,
                "after {second} messages"
            );
        }
    }
}
