//! DMA logging of all devices of a VM: what to start, and the union of their reports.

use crate::client::LoggingRange;
use crate::vmm::{GuestMemory, PAGE_SIZE, PageSet, Vm, VmError};
use crate::wire::consts;

/// First address past 32 bits.
const FOUR_GIB: u64 = 4 << 30;

/// The ranges QEMU starts logging with: one around all memory below 4 GiB and one around all above, holes included, widened
/// to whole pages of `page_size`.
pub fn qemu_ranges(memory: &GuestMemory, page_size: u64) -> Vec<LoggingRange> {
    let spans: Vec<(u64, u64)> = memory
        .regions()
        .iter()
        .map(|region| (region.iova(), region.end()))
        .collect();
    let (low, high): (Vec<_>, Vec<_>) = spans.into_iter().partition(|(start, _)| *start < FOUR_GIB);
    [low, high]
        .iter()
        .filter_map(|spans| around(spans, page_size))
        .collect()
}

fn around(spans: &[(u64, u64)], page_size: u64) -> Option<LoggingRange> {
    let start = spans.iter().map(|span| span.0).min()?;
    let end = spans.iter().map(|span| span.1).max()?;
    Some(widened(start, end, page_size))
}

fn widened(start: u64, end: u64, page_size: u64) -> LoggingRange {
    let iova = start - start % page_size;
    LoggingRange {
        iova,
        length: end.next_multiple_of(page_size) - iova,
    }
}

/// How the devices of a VM are logged.
#[derive(Clone, Debug)]
pub struct LoggingPlan {
    page_size: u64,
    ranges: Vec<LoggingRange>,
    logs: bool,
}

impl LoggingPlan {
    /// Plans for the memory as it is laid out now; a VM in which a device does not log reports every page.
    ///
    /// # Errors
    ///
    /// A device that cannot be asked.
    pub fn new(vm: &mut Vm, page_size: u64) -> Result<Self, VmError> {
        let ranges = qemu_ranges(vm.memory(), page_size);
        let probe = (consts::FEATURE_DMA_LOGGING_START, consts::FEATURE_SET);
        let answers = vm.each("probing DMA logging", |device| {
            device.client().probe_feature(probe.0, probe.1)
        })?;
        Ok(Self {
            page_size,
            ranges,
            logs: answers.into_iter().all(|answer| answer),
        })
    }

    /// Whether every device logs.
    pub fn logs(&self) -> bool {
        self.logs
    }

    /// Starts logging on every device.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn start(&self, vm: &mut Vm) -> Result<(), VmError> {
        if self.logs {
            vm.each("starting DMA logging", |device| {
                device.client().logging_start(self.page_size, &self.ranges)
            })?;
        }
        Ok(())
    }

    /// Stops logging on every device.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn stop(&self, vm: &mut Vm) -> Result<(), VmError> {
        if self.logs {
            vm.each("stopping DMA logging", |device| device.client().logging_stop())?;
        }
        Ok(())
    }

    /// Takes what was written since the last time, by the devices and by the CPU.
    ///
    /// # Errors
    ///
    /// A device whose log cannot be read: what it wrote is then unknown.
    pub fn collect(&self, vm: &mut Vm) -> Result<PageSet, VmError> {
        let memory = vm.memory().clone();
        if !self.logs {
            return Ok(PageSet::all(&memory));
        }
        let mut pages = PageSet::of(&memory);
        for index in 0..vm.device_count() {
            for span in self.spans(&memory) {
                self.report(vm, index, span, &mut pages)?;
            }
        }
        for region in memory.regions() {
            for page in region.take_cpu_dirty() {
                pages.insert_range(page, PAGE_SIZE);
            }
        }
        Ok(pages)
    }

    fn report(
        &self,
        vm: &mut Vm,
        index: usize,
        span: LoggingRange,
        pages: &mut PageSet,
    ) -> Result<(), VmError> {
        vm.with(index, "reading the dirty log", |device| {
            let most = report_limit(
                device.client().capabilities().max_data_xfer_size(),
                self.page_size,
            );
            for part in parts(span, most) {
                let report = device
                    .client()
                    .logging_report(part.iova, part.length, self.page_size)?;
                for page in report.dirty_pages() {
                    pages.insert_range(page, self.page_size);
                }
            }
            Ok(())
        })
    }

    /// What to ask reports of: each region, widened to whole pages, without overlaps.
    fn spans(&self, memory: &GuestMemory) -> Vec<LoggingRange> {
        let mut spans: Vec<LoggingRange> = Vec::new();
        for region in memory.regions() {
            let span = widened(region.iova(), region.end(), self.page_size);
            match spans.last_mut() {
                Some(before) if before.iova + before.length > span.iova => {
                    before.length = span.iova + span.length - before.iova;
                }
                _ => spans.push(span),
            }
        }
        spans
    }
}

/// Bytes of address space whose bitmap fits in one transfer.
fn report_limit(max_data_xfer_size: usize, page_size: u64) -> u64 {
    let words = (max_data_xfer_size as u64 / 8).max(1);
    words.saturating_mul(64).saturating_mul(page_size)
}

fn parts(span: LoggingRange, most: u64) -> impl Iterator<Item = LoggingRange> {
    let count = span.length.div_ceil(most);
    (0..count).map(move |number| LoggingRange {
        iova: span.iova + number * most,
        length: most.min(span.length - number * most),
    })
}

#[cfg(test)]
mod tests {
    use super::{LoggingPlan, LoggingRange, parts, qemu_ranges};
    use crate::vmm::{Backing, GuestMemory};

    #[test]
    fn ranges_include_the_holes() {
        let memory = GuestMemory::with_regions(
            &[(0, 0xa_0000), (1 << 20, 1 << 20), (4 << 30, 1 << 20)],
            Backing::Sealed,
        );
        let memory = memory.expect("memory");
        let low = LoggingRange {
            iova: 0,
            length: 2 << 20,
        };
        let high = LoggingRange {
            iova: 4 << 30,
            length: 1 << 20,
        };
        assert_eq!(qemu_ranges(&memory, 4096), [low, high]);
    }

    #[test]
    fn spans_cover_memory_once_at_every_page_size() {
        let memory = GuestMemory::pc(8 << 20, Backing::Sealed).expect("memory");
        for page_size in [512, 4096, 1 << 16, 1 << 21, 1 << 30] {
            let plan = LoggingPlan {
                page_size,
                ranges: qemu_ranges(&memory, page_size),
                logs: true,
            };
            let spans = plan.spans(&memory);
            for span in &spans {
                assert_eq!((span.iova % page_size, span.length % page_size), (0, 0));
                let within = |range: &LoggingRange| {
                    span.iova >= range.iova && span.iova + span.length <= range.iova + range.length
                };
                assert!(plan.ranges.iter().any(within));
            }
            assert!(spans.is_sorted_by(|a, b| a.iova + a.length <= b.iova));
        }
    }

    #[test]
    fn parts_make_up_the_whole() {
        let span = LoggingRange {
            iova: 4096,
            length: 10 * 4096,
        };
        let lengths: Vec<u64> = parts(span, 4 * 4096).map(|part| part.length / 4096).collect();
        assert_eq!(lengths, [4, 4, 2]);
    }
}
