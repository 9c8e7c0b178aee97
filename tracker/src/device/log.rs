//! [`DmaLog`]: the calls of VFIO that the tracker is built on.
//!
//! Whoever has a wrapper of VFIO's devices of its own implements them; [`Vfio`] is that of `vfio-ioctls`.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vfio_ioctls::{DmaLoggingRange, VfioDevice, VfioError};

use super::sys;
use crate::{IovaRange, PageSize};

/// A device's log of its DMA: `VFIO_DEVICE_FEATURE_DMA_LOGGING_*`, one method for each.
pub trait DmaLog: Send + Sync + fmt::Debug {
    /// Starts the log of `ranges`, which are multiples of `page_size`, in pages of that size or, if the device cannot, of the
    /// size returned.
    ///
    /// # Errors
    /// What the kernel said, with its number: a list that is refused is tried again in another form.
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> io::Result<PageSize>;

    /// Ends the log.
    ///
    /// # Errors
    /// What the kernel said.
    fn stop(&self) -> io::Result<()>;

    /// Reads and clears what is logged of `range`: sets in `words` a bit for each page of `page_size`, the first one being bit 0.
    /// `words` has as many as that takes, in which bits may be set already.
    ///
    /// # Errors
    /// What the kernel said. The log is lost then.
    fn report(&self, range: IovaRange, page_size: PageSize, words: &mut [u64]) -> io::Result<()>;
}

/// A device of VFIO's.
pub(super) struct Vfio(pub(super) Arc<VfioDevice>);

impl fmt::Debug for Vfio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vfio").field(&self.0.as_raw_fd()).finish()
    }
}

impl DmaLog for Vfio {
    fn start(&self, ranges: &[IovaRange], page_size: PageSize) -> io::Result<PageSize> {
        let ranges: Vec<DmaLoggingRange> = ranges.iter().map(logging_range).collect();
        let taken = self
            .0
            .start_dma_logging(page_size.bytes(), &ranges)
            .map_err(os_error)?;
        if let Some(taken) = PageSize::new(taken) {
            return Ok(taken);
        }
        self.stop()?;
        Err(io::Error::other(format!(
            "the device tracks in pages of {taken} bytes"
        )))
    }

    fn stop(&self) -> io::Result<()> {
        self.0.stop_dma_logging().map_err(os_error)
    }

    fn report(&self, range: IovaRange, page_size: PageSize, words: &mut [u64]) -> io::Result<()> {
        // That of the crate makes a bitmap of its own for each report.
        sys::report_dma_logging(&*self.0, range, page_size, words)
    }
}

fn logging_range(range: &IovaRange) -> DmaLoggingRange {
    DmaLoggingRange {
        iova: range.start().get(),
        length: range.len(),
    }
}

/// What the kernel said, without the crate's words around it.
fn os_error(error: VfioError) -> io::Error {
    match error {
        VfioError::VfioDeviceFeature(errno) => io::Error::from_raw_os_error(errno.errno()),
        error => io::Error::other(error),
    }
}
