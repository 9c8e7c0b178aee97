//! DMA logging: device features 6, 7 and 8.

use pagetrail_tracker::{Iova, IovaRange, LogError, PageSize, ReportBitmap};
use rustix::io::Errno;

use super::Session;
use crate::wire::feature::{LoggingControl, LoggingRange, LoggingReport};
use crate::wire::{self, MAX_DATA_XFER_SIZE};

/// More ranges than this are refused before they are looked at.
const MAX_RANGES: u32 = 1024;

/// Page sizes that a client may ask for, in bytes.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=1 << 30;

impl Session {
    /// Starts the log. `data` is the feature's data.
    pub(super) fn start_logging(&self, data: &[u8]) -> Result<(), Errno> {
        let (control, mut rest) = wire::split::<LoggingControl>(data)?;
        if control.reserved != 0 {
            return Err(Errno::INVAL);
        }
        if control.range_count > MAX_RANGES {
            return Err(Errno::TOOBIG);
        }
        let page_size = page_size(control.page_size)?;
        let mut ranges = Vec::with_capacity(control.range_count as usize);
        for _ in 0..control.range_count {
            let (range, after) = wire::split::<LoggingRange>(rest)?;
            ranges.push(iova_range(range.iova, range.length)?);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        self.log
            .start(&ranges, page_size)
            .map_err(|error| self.log_failed(&error))
    }

    pub(super) fn stop_logging(&self) -> Result<(), Errno> {
        self.log.stop().map_err(|error| self.log_failed(&error))
    }

    /// Reads and clears the log. `data` is the feature's data; the bitmap is appended to `reply`.
    pub(super) fn report(&self, data: &[u8], argsz: usize, reply: &mut Vec<u8>) -> Result<(), Errno> {
        // A client may send its request with room for the bitmap; what is there is not looked at.
        let (report, _) = wire::split::<LoggingReport>(data)?;
        let page_size = page_size(report.page_size)?;
        let range = iova_range(report.iova, report.length)?;
        if !(report.iova | report.length).is_multiple_of(page_size.bytes()) {
            return Err(Errno::INVAL);
        }
        let needed = ReportBitmap::required_len(range, page_size).map_err(|_| Errno::INVAL)?;
        if needed > MAX_DATA_XFER_SIZE {
            return Err(Errno::TOOBIG);
        }
        let header = reply.len() + size_of::<LoggingReport>();
        // Nothing may be cleared for a reply that the client has no room for.
        if argsz < header + needed {
            return Err(Errno::INVAL);
        }
        self.refuse_if_failed()?;
        reply.extend(wire::bytes(&report));
        reply.resize(header + needed, 0);
        self.read_log(range, page_size, &mut reply[header..])
    }

    /// Reads and clears the log of `range` into `bitmap`, all of which is sent.
    pub(super) fn read_log(
        &self,
        range: IovaRange,
        page_size: PageSize,
        bitmap: &mut [u8],
    ) -> Result<(), Errno> {
        let mut report = ReportBitmap::new(range, page_size, bitmap).map_err(|_| Errno::INVAL)?;
        self.log
            .report(&mut report)
            .map_err(|error| self.log_failed(&error))?;
        if let Some(oldest) = self.unconfirmed.keep(range, page_size, bitmap) {
            oldest.put_back(&self.log.ioas().software_tracker());
        }
        Ok(())
    }

    /// The last reports were not delivered, or may not have been: their pages stay due.
    pub(super) fn put_back_reports(&self) {
        self.unconfirmed.put_back(&self.log.ioas().software_tracker());
    }

    /// A failed device may write memory after it was last asked for dirty pages, so its log is not to be trusted.
    pub(super) fn refuse_if_failed(&self) -> Result<(), Errno> {
        if self.backend.is_failed() {
            Err(Errno::IO)
        } else {
            Ok(())
        }
    }

    /// Says loudly when the log is lost.
    pub(super) fn log_failed(&self, error: &LogError) -> Errno {
        let name = &self.name;
        match error {
            LogError::TrackerFailed { .. } => {
                let error = format!("{:#}", anyhow::Error::new(error.clone()));
                tracing::error!(
                    device = name,
                    error,
                    "DMA logging failed: a migration must not go on"
                );
            }
            LogError::Untracked(_) => tracing::warn!(device = name, %error, "refused to log DMA"),
            _ => tracing::debug!(device = name, %error, "refused a DMA logging request"),
        }
        log_errno(error)
    }
}

/// What the client gets (`docs/src/protocol.md`).
pub(super) fn log_errno(error: &LogError) -> Errno {
    match error {
        LogError::AlreadyStarted => Errno::BUSY,
        LogError::NotStarted | LogError::RangeNotStarted(_) | LogError::BadRanges(_) => Errno::INVAL,
        LogError::TooManyRanges { .. } => Errno::TOOBIG,
        LogError::TrackerFailed { .. } | LogError::DeviceFailed(_) | LogError::Untracked(_) => Errno::IO,
        LogError::OutOfMemory(_) => Errno::NOMEM,
    }
}

fn page_size(bytes: u64) -> Result<PageSize, Errno> {
    PageSize::new(bytes)
        .filter(|size| PAGE_SIZES.contains(&size.bytes()))
        .ok_or(Errno::INVAL)
}

fn iova_range(iova: u64, length: u64) -> Result<IovaRange, Errno> {
    IovaRange::from_len(Iova::new(iova), length).map_err(|_| Errno::INVAL)
}
