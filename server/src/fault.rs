//! Faults that break the promise on purpose.
//!
//! A check that has never failed proves nothing. Each of these makes a device lose pages, or its state, in one particular way,
//! and the migration checks must find every one of them. Only in builds with the feature `fault-injection`.

use std::fmt;
use std::str::FromStr;

use pagetrail_tracker::Iova;

/// A way to lose a page, or a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes to the page with this address are never marked.
    SuppressPage(Iova),
    /// As [`StoreBuffer`](Self::StoreBuffer), and the reader leaves its barrier out, so that nothing drains it.
    NoReaderBarrier,
    /// Data is held back in a store buffer larger than any processor's, which the reader's barrier drains. Nothing is lost: this is
    /// the control of the control above.
    StoreBuffer,
    /// Pages are marked before they are written.
    MarkBeforeWrite,
    /// Every report is handed over with the next one.
    LateReport,
    /// One bit of the migration stream is flipped on its way out.
    CorruptStream,
    /// The device says that it does not migrate. A VM that moves all the same loses its state.
    NoMigration,
}

impl Fault {
    /// The forms that [`from_str`](Self::from_str) takes.
    pub const FORMS: &str = "suppress-page=IOVA, no-reader-barrier, store-buffer, mark-before-write, late-report, corrupt-stream or no-migration";
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuppressPage(iova) => write!(f, "suppress-page={:#x}", iova.get()),
            Self::NoReaderBarrier => f.write_str("no-reader-barrier"),
            Self::StoreBuffer => f.write_str("store-buffer"),
            Self::MarkBeforeWrite => f.write_str("mark-before-write"),
            Self::LateReport => f.write_str("late-report"),
            Self::CorruptStream => f.write_str("corrupt-stream"),
            Self::NoMigration => f.write_str("no-migration"),
        }
    }
}

/// A text that names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownFault {
    /// No such fault.
    #[error("not a fault: choose {}", Fault::FORMS)]
    Name,
    /// The address is not a number.
    #[error("not an IOVA: write it as 4096 or 0x1000")]
    Iova,
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        if let Some(iova) = text.strip_prefix("suppress-page=") {
            return parse_iova(iova).map(Self::SuppressPage).ok_or(UnknownFault::Iova);
        }
        match text {
            "no-reader-barrier" => Ok(Self::NoReaderBarrier),
            "store-buffer" => Ok(Self::StoreBuffer),
            "mark-before-write" => Ok(Self::MarkBeforeWrite),
            "late-report" => Ok(Self::LateReport),
            "corrupt-stream" => Ok(Self::CorruptStream),
            "no-migration" => Ok(Self::NoMigration),
            _ => Err(UnknownFault::Name),
        }
    }
}

fn parse_iova(text: &str) -> Option<Iova> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok().map(Iova::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_written_as_it_is_read() {
        for text in [
            "suppress-page=0x7000",
            "no-reader-barrier",
            "store-buffer",
            "mark-before-write",
            "late-report",
            "corrupt-stream",
            "no-migration",
        ] {
            assert_eq!(text.parse::<Fault>().expect("a fault").to_string(), text);
        }
        assert_eq!(
            "suppress-page=4096".parse(),
            Ok(Fault::SuppressPage(Iova::new(0x1000)))
        );
    }

    #[test]
    fn other_texts_are_refused_with_the_forms() {
        for text in ["", "suppress-page", "late", "Late-Report"] {
            let error = text.parse::<Fault>().expect_err("not a fault");
            assert!(error.to_string().contains("late-report"), "{error}");
        }
        for text in [
            "suppress-page=",
            "suppress-page=0x",
            "suppress-page=-1",
            "suppress-page=page",
        ] {
            assert_eq!(text.parse::<Fault>(), Err(UnknownFault::Iova), "{text}");
        }
    }
}
