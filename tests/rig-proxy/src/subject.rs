//! [`Subject`]: a device, and how it is to be served.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pagetrail_rig_devices::Kind;

/// A device, and the program that serves it.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) pagetrail: PathBuf,
    pub(crate) address: String,
    pub(crate) kind: Kind,
    pub(crate) tracker: Tracker,
}

/// Who tracks what a device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracker {
    /// Whoever can, the IOMMU first.
    Iommu,
    /// The device itself, whatever the IOMMU can.
    Device,
}

impl Subject {
    /// The device at a PCI address, tracked by the IOMMU if it can.
    pub(crate) fn new(pagetrail: &Path, address: &str) -> Result<Self> {
        let id = |name: &str| {
            let path = format!("/sys/bus/pci/devices/{address}/{name}");
            let text = std::fs::read_to_string(&path).with_context(|| format!("no {path}"))?;
            let digits = text.trim().trim_start_matches("0x");
            u16::from_str_radix(digits, 16).with_context(|| format!("{path} has {text}"))
        };
        Ok(Self {
            pagetrail: pagetrail.to_owned(),
            address: address.to_owned(),
            kind: Kind::of((id("vendor")?, id("device")?))?,
            tracker: Tracker::Iommu,
        })
    }

    /// The same device, to be tracked by `tracker`.
    pub(crate) fn by(&self, tracker: Tracker) -> Self {
        Self {
            tracker,
            ..self.clone()
        }
    }
}

impl fmt::Display for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iommu => "the IOMMU",
            Self::Device => "itself",
        })
    }
}

impl Tracker {
    /// As the server is told.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Iommu => "any",
            Self::Device => "device",
        }
    }
}
