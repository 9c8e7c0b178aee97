//! The kinds of devices, by the names that users write.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use pagetrail::device::DeviceModel;
use pagetrail::devices::dma::{DmaModel, Lanes};
use serde::{Deserialize, Serialize};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A DMA engine with a page generator.
    Dma,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dma => "dma",
        }
    }

    /// One line on what the device is.
    pub(super) fn summary(self) -> &'static str {
        match self {
            Self::Dma => "DMA engine with a page generator that live-migrates in mid-flight",
        }
    }
}

/// A `dma` device with this many workers.
pub(super) fn dma(workers: u32) -> anyhow::Result<Arc<dyn DeviceModel>> {
    let lanes = Lanes::new(workers).with_context(|| format!("{workers} workers: there can be 1 to 64"))?;
    Ok(Arc::new(DmaModel { lanes }))
}
