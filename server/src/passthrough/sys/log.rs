//! [`Log`]: a device's log of its DMA.

use std::io;
use std::sync::Arc;

use pagetrail_tracker::{DmaLog, IovaRange, PageSize, report_dma_logging};
use zerocopy::IntoBytes;

use super::Cdev;
use super::ioctl::{Request, answer, call, feature_argument};
use super::layout::LoggingControl;
use crate::wire::feature::{Feature, FeatureOps, LoggingRange, number};

/// A device's log of its DMA.
#[derive(Debug)]
pub(in crate::passthrough) struct Log(pub(in crate::passthrough) Arc<Cdev>);

impl DmaLog for Log {
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> io::Result<PageSize> {
        let ranges: Vec<LoggingRange> = ranges
            .iter()
            .map(|range| LoggingRange {
                iova: range.start().get(),
                length: range.len(),
            })
            .collect();
        let control = LoggingControl {
            page_size: page_size.bytes(),
            num_ranges: ranges.len() as u32,
            reserved: 0,
            ranges: ranges.as_ptr() as u64,
        };
        let mut argument = feature_argument(number::DMA_LOGGING_START, FeatureOps::SET, control.as_bytes());
        // The kernel reads `num_ranges` ranges at `ranges`, which live until it has returned.
        call(&self.0.file, Request::DEVICE_FEATURE, &mut argument)?;
        let taken: LoggingControl = answer(&argument[size_of::<Feature>()..])?;
        if let Some(taken) = PageSize::new(taken.page_size) {
            return Ok(taken);
        }
        self.stop()?;
        Err(io::Error::other(format!(
            "the device tracks in pages of {} bytes",
            taken.page_size
        )))
    }

    fn stop(&self) -> io::Result<()> {
        let mut argument = feature_argument(number::DMA_LOGGING_STOP, FeatureOps::SET, &[]);
        call(&self.0.file, Request::DEVICE_FEATURE, &mut argument).map(drop)
    }

    fn report(&self, range: IovaRange, page_size: PageSize, words: &mut [u64]) -> io::Result<()> {
        report_dma_logging(&self.0.file, range, page_size, words)
    }
}
