//! The last report, until it is known to have arrived.
//!
//! Pages are handed over once for all devices of a VM. Those of a report whose client leaves before it has the reply would be lost
//! for the others, so they are marked again; so are those of a report that was asked for without a reply. A client shows that it has a reply by its next message; one that sends the next
//! message first and then leaves has to copy everything anyway, as after any report that it did not get.

use pagetrail_tracker::{Iova, IovaRange, PageSize, SoftwareTracker};
use parking_lot::Mutex;

/// The last report, if it may not have arrived.
#[derive(Default)]
pub(super) struct Unconfirmed(Mutex<Option<Report>>);

struct Report {
    range: IovaRange,
    page_size: PageSize,
    bitmap: Vec<u8>,
}

impl Unconfirmed {
    /// A report of `range` is about to be sent.
    pub(super) fn keep(&self, range: IovaRange, page_size: PageSize, bitmap: &[u8]) {
        *self.0.lock() = Some(Report {
            range,
            page_size,
            bitmap: bitmap.to_vec(),
        });
    }

    /// The client has sent another message.
    pub(super) fn confirm(&self) {
        *self.0.lock() = None;
    }

    /// Marks again what the client may not have learnt.
    pub(super) fn put_back(&self, tracker: &SoftwareTracker) {
        if let Some(report) = self.0.lock().take() {
            report.pages().for_each(|page| tracker.mark(page));
        }
    }
}

impl Report {
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
