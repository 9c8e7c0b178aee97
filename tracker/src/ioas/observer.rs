//! [`Observer`]: a reader that is not the migration.

use std::sync::Arc;

use super::{Ioas, LogError, ReaderId};
use crate::ReportBitmap;

/// Reads what is written for a purpose of its own (dirty rate, metrics), and takes nothing from the migration.
///
/// Tracking is on while it exists.
#[derive(Debug)]
pub struct Observer {
    ioas: Arc<Ioas>,
    reader: ReaderId,
}

impl Observer {
    pub(super) fn new(ioas: Arc<Ioas>, reader: ReaderId) -> Self {
        Self { ioas, reader }
    }

    /// Marks in `report` every page of its range that was written since this observer last read it, and forgets it.
    ///
    /// # Errors
    /// As of [`Attachment::report`](super::Attachment::report). A lost log stays lost: make another observer.
    pub fn read_and_clear(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        self.ioas.state.lock().log.read(self.reader, report)
    }

    /// As [`read_and_clear`](Self::read_and_clear), but forgets nothing.
    ///
    /// # Errors
    /// As of [`read_and_clear`](Self::read_and_clear).
    pub fn peek(&self, report: &mut ReportBitmap<'_>) -> Result<(), LogError> {
        self.ioas.state.lock().log.peek(self.reader, report)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Err(error) = self.ioas.state.lock().log.close(self.reader) {
            tracing::error!(%error, "cannot end the log of an observer");
        }
    }
}
