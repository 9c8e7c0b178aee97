//! The kinds of devices, by the names that users write.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use pagetrail::device::DeviceModel;
use pagetrail::devices::dma::{DmaModel, Lanes};
use pagetrail::passthrough::{
    BarAccess, HostIommu, Leaves, PassthroughConfig, PassthroughModel, Source, TrackerChoice, WithoutTracker,
};
use pagetrail::program::About;
use serde::{Deserialize, Serialize};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A DMA engine with a page generator.
    Dma,
    /// A device of the kernel's VFIO. It cannot do with a socket alone, so nobody starts it by a description.
    #[value(skip)]
    Vfio,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        self.about().kind
    }

    /// What its program says of it.
    pub(super) fn about(self) -> About {
        match self {
            Self::Dma => About {
                kind: "dma",
                summary: "DMA engine with a page generator that live-migrates in mid-flight",
            },
            Self::Vfio => About {
                kind: "vfio",
                summary: "device of the host's, passed through",
            },
        }
    }
}

/// A `dma` device with this many workers.
pub(super) fn dma(workers: u32) -> anyhow::Result<Arc<dyn DeviceModel>> {
    let lanes = Lanes::new(workers).with_context(|| format!("{workers} workers: there can be 1 to 64"))?;
    Ok(Arc::new(DmaModel { lanes }))
}

/// A passthrough device as users write it.
pub(super) struct Passthrough {
    /// One of these two is there.
    pub(super) pci: Option<String>,
    pub(super) cdev: Option<PathBuf>,
    pub(super) iommu: Arc<HostIommu>,
    pub(super) bar_mmap: bool,
    pub(super) tracker: Tracker,
    pub(super) assume_all_dirty: bool,
}

/// What may track a passthrough device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Tracker {
    /// The IOMMU if it can, or else the device.
    #[default]
    Any,
    /// The IOMMU alone, by dirty bits of its page tables.
    Iommu,
    /// The device alone, by its own log.
    Device,
}

impl From<Tracker> for TrackerChoice {
    fn from(tracker: Tracker) -> Self {
        match tracker {
            Tracker::Any => Self::Any,
            Tracker::Iommu => Self::Iommu,
            Tracker::Device => Self::Device,
        }
    }
}

/// The device of the kernel's that is meant, opened.
pub(super) fn passthrough(device: Passthrough) -> anyhow::Result<Arc<PassthroughModel>> {
    let source = match (device.pci, device.cdev) {
        (Some(address), None) => Source::Pci(address),
        (None, Some(path)) => Source::Cdev(path),
        _ => bail!("a vfio device has a PCI address or a character device: give it one of them"),
    };
    let config = PassthroughConfig {
        source,
        iommu: device.iommu,
        bars: if device.bar_mmap {
            BarAccess::Mapped
        } else {
            BarAccess::Messages
        },
        trackers: device.tracker.into(),
        without_tracker: if device.assume_all_dirty {
            WithoutTracker::AssumeDirty
        } else {
            WithoutTracker::BlockLog
        },
    };
    Ok(PassthroughModel::open(config)?)
}

/// What the user's wish for large pages means.
pub(super) fn leaves(large_pages: bool) -> Leaves {
    if large_pages { Leaves::Large } else { Leaves::Small }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_installed_description_is_what_the_program_prints() {
        let installed = include_str!("../../dist/50-pagetrail-dma.json");
        let printed = Kind::Dma.about().describe(Path::new("/usr/bin/pagetrail-dma"));
        assert_eq!(printed.expect("printable"), installed);
    }
}
