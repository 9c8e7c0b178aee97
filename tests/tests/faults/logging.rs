//! DMA logging on the wire.

use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, consts};

use super::feature::{feature, methods};
use super::{Control, control, echo, u32_at, u64_at};
use crate::proxy::Rule;

use Command::DeviceFeature as Feature;

/// Bytes before a report's bitmap.
pub(super) const BITMAP: usize = 32;

fn starts(message: &Message) -> bool {
    feature(message) == consts::FEATURE_DMA_LOGGING_START && methods(message) == consts::FEATURE_SET
}

fn stops(message: &Message) -> bool {
    feature(message) == consts::FEATURE_DMA_LOGGING_STOP && methods(message) == consts::FEATURE_SET
}

pub(super) fn reports(message: &Message) -> bool {
    feature(message) == consts::FEATURE_DMA_LOGGING_REPORT && methods(message) == consts::FEATURE_GET
}

/// First IOVA of a report.
pub(super) fn iova(message: &Message) -> u64 {
    u64_at(message, 8)
}

/// Bytes of a report.
pub(super) fn length(message: &Message) -> u64 {
    u64_at(message, 16)
}

/// Page size of a report.
pub(super) fn page_size(message: &Message) -> u64 {
    u64_at(message, 24)
}

pub(super) fn controls() -> Vec<Control> {
    let mut controls = control_controls();
    controls.extend(report_controls());
    controls
}

fn control_controls() -> Vec<Control> {
    vec![
        control("logging/a-start-answers-with-its-request", || {
            Rule::edits(Feature, starts, |_, reply| {
                if let Some(byte) = reply.payload.last_mut() {
                    *byte ^= 1;
                }
            })
        }),
        control("logging/no-ranges-are-all-addresses", || {
            Rule::refuses(Feature, |m| starts(m) && u32_at(m, 16) == 0, consts::EINVAL)
        }),
        control("logging/a-start-while-it-runs-is-refused", || {
            Rule::grants(Feature, starts, echo)
        }),
        control("logging/it-stops-and-starts-again", || {
            Rule::pretends(Feature, stops, echo)
        }),
        control("logging/ranges-are-all-there", || {
            Rule::grants(Feature, starts, echo)
        }),
        control("logging/ranges-that-wrap-are-refused", || {
            Rule::grants(Feature, starts, echo)
        }),
    ]
}

/// A report that says nothing.
fn empty(request: &Message) -> Vec<u8> {
    [&request.payload, [0; 16].as_slice()].concat()
}

fn report_controls() -> Vec<Control> {
    vec![
        control("logging/a-report-needs-a-start", || {
            Rule::grants(Feature, reports, empty)
        }),
        control("logging/a-report-has-its-request-and-the-bitmap", || {
            Rule::edits(Feature, reports, |_, reply| {
                reply.payload.truncate(reply.payload.len() - 8);
            })
        }),
        control("logging/bits-behind-the-range-are-zero", || {
            Rule::edits(Feature, reports, |_, reply| {
                if let Some(byte) = reply.payload.last_mut() {
                    *byte = 0xff;
                }
            })
        }),
        control("logging/a-report-may-be-of-a-part", || {
            Rule::refuses(
                Feature,
                |m| reports(m) && page_size(m) == 1 << 16,
                consts::ENOTSUP,
            )
        }),
        control("logging/a-report-may-be-of-what-is-not-mapped", || {
            Rule::refuses(Feature, reports, consts::ENOENT)
        }),
        control("logging/page-sizes-are-powers-of-two", || {
            Rule::grants(Feature, |m| reports(m) && !page_size(m).is_power_of_two(), empty)
        }),
        control("logging/reports-that-wrap-are-refused", || {
            Rule::grants(
                Feature,
                |m| reports(m) && iova(m).checked_add(length(m)).is_none(),
                empty,
            )
        }),
        control("logging/a-report-keeps-to-the-room", || {
            Rule::grants(Feature, reports, |_| vec![0; BITMAP + 128])
        }),
        control("logging/a-report-has-its-data", || {
            Rule::grants(Feature, |m| reports(m) && m.payload.len() < BITMAP, empty)
        }),
    ]
}
