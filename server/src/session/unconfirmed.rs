//! Reports, until they are known to have arrived.
//!
//! Pages are handed over once for all devices of a VM. Those of a report whose client leaves before it has read the reply would be
//! lost for the others, so they are marked again; so are those of a report that was asked for without a reply. That a reply was read
//! shows when the client's next message comes and the socket holds nothing unread: a client that asks for the next thing before it
//! has read the last keeps its reports unconfirmed until it has caught up.
//!
//! A report that arrived and could not be confirmed is reported twice, which costs a copy and loses nothing.

use std::collections::VecDeque;

use pagetrail_tracker::{Iova, IovaRange, PageSize, SoftwareTracker};
use parking_lot::Mutex;

/// Reports that are kept at a time, of a bitmap of 1 MiB at most each. There is room in a socket's buffer for hardly more.
const MAX_KEPT: usize = 8;

/// The reports that may not have arrived, oldest first.
#[derive(Default)]
pub(super) struct Unconfirmed(Mutex<VecDeque<Report>>);

/// A report.
pub(super) struct Report {
    range: IovaRange,
    page_size: PageSize,
    bitmap: Vec<u8>,
}

impl Unconfirmed {
    /// A report of `range` is about to be sent. Returns one for which there is no room any more: it is to be marked again.
    #[must_use]
    pub(super) fn keep(&self, range: IovaRange, page_size: PageSize, bitmap: &[u8]) -> Option<Report> {
        let mut kept = self.0.lock();
        kept.push_back(Report {
            range,
            page_size,
            bitmap: bitmap.to_vec(),
        });
        if kept.len() > MAX_KEPT {
            kept.pop_front()
        } else {
            None
        }
    }

    /// The client has sent another message; `is_read` tells whether it has read all that came before.
    pub(super) fn confirm(&self, is_read: impl FnOnce() -> bool) {
        let mut kept = self.0.lock();
        if !kept.is_empty() && is_read() {
            kept.clear();
        }
    }

    /// Marks again what the client may not have learnt.
    pub(super) fn put_back(&self, tracker: &SoftwareTracker) {
        for report in self.0.lock().drain(..) {
            report.put_back(tracker);
        }
    }
}

impl Report {
    /// Marks its pages again.
    pub(super) fn put_back(&self, tracker: &SoftwareTracker) {
        self.pages().for_each(|page| tracker.mark(page));
    }

    /// The pages that it names.
    fn pages(&self) -> impl Iterator<Item = IovaRange> {
        let is_set = |number: &usize| self.bitmap[number / 8] >> (number % 8) & 1 != 0;
        (0..self.bitmap.len() * 8).filter(is_set).filter_map(|number| {
            let offset = (number as u64).checked_mul(self.page_size.bytes())?;
            let start = self.range.start().checked_add(offset)?;
            let last = start.get().saturating_add(self.page_size.bytes() - 1);
            IovaRange::new(start, Iova::new(last)).ok()
        })
    }
}
