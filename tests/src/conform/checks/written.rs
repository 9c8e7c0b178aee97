//! What a device writes is reported: once, where it was, and nowhere else.

use std::sync::Arc;

use crate::client::{Error, LoggingRange};
use crate::conform::check::{Check, Checked, Source, fail, skip};
use crate::conform::drive::{BUFFER, Driven, MEMORY};
use crate::conform::probe::Probe;
use crate::conform::{expect, needs};
use crate::vmm::{PAGE_SIZE as PAGE, Region};

const LOG: Source = Source::Uapi("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT");
const START: Source =
    Source::Spec("VFIO_DEVICE_FEATURE_DMA_LOGGING_START / VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP");
const REPORT: Source = Source::Spec("VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT");
const UNMAP: Source = Source::Uapi("VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP");

/// Nothing was written.
const NOTHING: [u64; 0] = [];

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new(
            "written/a-page-is-reported-once",
            LOG,
            "A page that the device wrote is in the next report of it, and not in the one after that.",
            once,
        ),
        Check::new(
            "written/every-write-is-reported",
            START,
            "What the device writes of its own accord, its completions, is logged too.",
            completions,
        ),
        Check::new(
            "written/what-is-read-is-not-reported",
            START,
            "Only DMA writes are logged.",
            reads,
        ),
        Check::new(
            "written/a-part-is-reported-without-the-rest",
            LOG,
            "A report of a part clears that part, and leaves the rest to be reported.",
            parts,
        ),
        Check::new(
            "written/page-sizes-convert-without-loss",
            REPORT,
            "At every page size and odd length a report has each page that the write touched, and no page beyond the \
             4 KiB page written.",
            page_sizes,
        ),
        Check::new(
            "written/a-range-may-have-holes",
            START,
            "A started range may include addresses that are not mapped; what lies around a hole is reported.",
            holes,
        ),
        Check::new(
            "written/several-ranges-are-logged",
            START,
            "Each range of a START is logged.",
            several_ranges,
        ),
        Check::new(
            "written/an-unmap-keeps-what-was-written",
            LOG,
            "Clients unmap first and ask afterwards: the log of unmapped memory is reported still.",
            unmap_keeps,
        ),
        Check::new(
            "written/a-new-map-keeps-what-was-written",
            LOG,
            "Unmapping and mapping again, in the midst of logging, loses nothing of before and logs what comes.",
            remap_keeps,
        ),
        Check::new(
            "written/memory-mapped-while-logging-is-logged",
            START,
            "Memory that appears in a started range is logged from then on.",
            late_map,
        ),
        Check::new(
            "written/an-unmap-hands-its-bitmap-over",
            UNMAP,
            "The bitmap that comes with an unmap has what was written, and it is not reported again.",
            unmap_bitmap,
        ),
        Check::new(
            "written/a-new-start-begins-clean",
            START,
            "What was written before a START, or between STOP and START, is not in the log.",
            begins_clean,
        ),
        Check::new(
            "written/the-page-size-hinted-loses-nothing",
            START,
            "Whatever page size START names, a report in 4 KiB pages has every page written.",
            hints,
        ),
    ]
}

/// A device that can be told to write, and logs all memory.
fn logging(probe: &Probe<'_>) -> Checked<Driven> {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    driven.start(0, &[(0, MEMORY)])?;
    Ok(driven)
}

/// A report in 4 KiB pages must be this.
fn reported(driven: &mut Driven, iova: u64, pages: u64, expected: &[u64]) -> Checked {
    let got = driven.dirty(0, iova, pages * PAGE, PAGE)?;
    expect::that(got == expected, || {
        format!("reported are {got:x?}, written were {expected:x?}")
    })
}

fn once(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER + 100, 5000)?;
    reported(&mut driven, BUFFER, 16, &[BUFFER, BUFFER + PAGE])?;
    reported(&mut driven, BUFFER, 16, &NOTHING)
}

fn completions(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER, 8)?;
    let page = driven.completions(0) / PAGE * PAGE;
    reported(&mut driven, page, 1, &[page])
}

fn reads(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.read(0, BUFFER, 8 * PAGE)?;
    reported(&mut driven, BUFFER, 8, &NOTHING)
}

fn parts(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER, 10 * PAGE)?;
    reported(
        &mut driven,
        BUFFER + 3 * PAGE,
        2,
        &[BUFFER + 3 * PAGE, BUFFER + 4 * PAGE],
    )?;
    let rest: Vec<u64> = [0, 1, 2, 5, 6, 7, 8, 9].map(|page| BUFFER + page * PAGE).to_vec();
    reported(&mut driven, BUFFER, 10, &rest)
}

fn page_sizes(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    driven.start(0, &[])?;
    for page_size in [PAGE, 2 * PAGE, 1 << 14, 1 << 16, 1 << 20, 1 << 21] {
        for pages in [1, 3, 63, 64, 65, 129, 300] {
            one_conversion(&mut driven, page_size, pages)?;
        }
    }
    Ok(())
}

/// Writes into one page, and reports `pages` of `page_size` around it.
fn one_conversion(driven: &mut Driven, page_size: u64, pages: u64) -> Checked {
    let (dest, length) = (BUFFER + 3 * PAGE + 16, 304);
    driven.write(0, dest, length)?;
    let start = BUFFER / page_size * page_size;
    let got = driven.dirty(0, start, pages * page_size, page_size)?;
    let end = start + pages * page_size;
    let written = dest / PAGE * PAGE;
    let what =
        || format!("{pages} pages of {page_size}: {dest:#x} + {length} was written, reported is {got:x?}");
    if (start..end).contains(&dest) {
        expect::that(got.contains(&(dest / page_size * page_size)), what)?;
    }
    let beyond = got
        .iter()
        .any(|page| page + page_size <= written || *page >= written + PAGE);
    expect::that(!beyond, what)?;
    // What a short report left over is taken before the next.
    driven.dirty(0, BUFFER, 64 * PAGE, PAGE).map(drop)
}

fn holes(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    driven.start(0, &[(0, 1 << 32)])?;
    // A PC has no memory from 640 KiB to 1 MiB.
    driven.write(0, 0x9_f000, PAGE)?;
    driven.write(0, 0x10_0000, PAGE)?;
    reported(&mut driven, 0x9_0000, 0x100, &[0x9_f000, 0x10_0000])?;
    reported(&mut driven, 1 << 31, 0x1000, &NOTHING)
}

fn several_ranges(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    driven.start(0, &[(BUFFER, 4 * PAGE), (BUFFER + 8 * PAGE, 4 * PAGE)])?;
    driven.write(0, BUFFER, 12 * PAGE)?;
    let four = |first: u64| [0, 1, 2, 3].map(|page| first + page * PAGE);
    reported(&mut driven, BUFFER, 4, &four(BUFFER))?;
    reported(&mut driven, BUFFER + 8 * PAGE, 4, &four(BUFFER + 8 * PAGE))
}

/// The region that holds the buffer.
fn buffer_region(driven: &mut Driven) -> Checked<Arc<Region>> {
    Ok(driven.vm().memory().find(BUFFER, 1)?)
}

fn unmap_keeps(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER, 3 * PAGE)?;
    let region = buffer_region(&mut driven)?;
    driven.client(0).dma_unmap(region.iova(), region.size())?;
    reported(
        &mut driven,
        BUFFER,
        16,
        &[BUFFER, BUFFER + PAGE, BUFFER + 2 * PAGE],
    )
}

fn remap_keeps(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER, PAGE)?;
    let region = buffer_region(&mut driven)?;
    driven.client(0).dma_unmap(region.iova(), region.size())?;
    region.map_into(driven.client(0))?;
    driven.write(0, BUFFER + 5 * PAGE, PAGE)?;
    reported(&mut driven, BUFFER, 16, &[BUFFER, BUFFER + 5 * PAGE])
}

fn late_map(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    let region = buffer_region(&mut driven)?;
    driven.client(0).dma_unmap(region.iova(), region.size())?;
    driven.start(0, &[(0, MEMORY)])?;
    region.map_into(driven.client(0))?;
    driven.write(0, BUFFER, PAGE)?;
    reported(&mut driven, BUFFER, 16, &[BUFFER])
}

fn unmap_bitmap(probe: &Probe<'_>) -> Checked {
    let mut driven = logging(probe)?;
    driven.write(0, BUFFER + 7 * PAGE, 2 * PAGE)?;
    let region = buffer_region(&mut driven)?;
    let unmapped = match driven
        .client(0)
        .dma_unmap_dirty(region.iova(), region.size(), PAGE)
    {
        Ok(unmapped) => unmapped,
        Err(Error::Server { .. }) => {
            return skip("the server does not take VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP");
        }
        Err(error) => return Err(error.into()),
    };
    let Some(report) = unmapped.dirty else {
        return fail("the reply has no bitmap");
    };
    for page in 5..12 {
        let iova = BUFFER + page * PAGE;
        let (got, written) = (report.contains(iova), matches!(page, 7 | 8));
        expect::that(got == written, || {
            format!("page {iova:#x}: reported {got}, written {written}")
        })?;
    }
    reported(&mut driven, BUFFER, 16, &NOTHING)
}

fn begins_clean(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    for _ in 0..3 {
        driven.write(0, BUFFER, PAGE)?;
        driven.start(0, &[(0, MEMORY)])?;
        reported(&mut driven, BUFFER, 16, &NOTHING)?;
        driven.write(0, BUFFER + PAGE, PAGE)?;
        driven.client(0).logging_stop()?;
    }
    Ok(())
}

fn hints(probe: &Probe<'_>) -> Checked {
    let mut driven = Driven::one(probe)?;
    needs::logging(driven.client(0))?;
    for page_size in [PAGE, 1 << 16, 1 << 21] {
        let range = LoggingRange {
            iova: 0,
            length: MEMORY,
        };
        driven.client(0).logging_start(page_size, &[range])?;
        let pages = [0, 1, 5, 17].map(|page| BUFFER + page * PAGE);
        for page in pages {
            driven.write(0, page, 8)?;
        }
        let got = driven.dirty(0, BUFFER, 32 * PAGE, PAGE)?;
        expect::that(pages.iter().all(|page| got.contains(page)), || {
            format!("page size {page_size}: written were {pages:x?}, reported are {got:x?}")
        })?;
        driven.client(0).logging_stop()?;
    }
    Ok(())
}
