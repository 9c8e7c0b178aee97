//! The kinds of devices, by the names that users write.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use pagetrail::device::DeviceModel;
use pagetrail::devices::dma::{DmaModel, Lanes};
use pagetrail::program::About;
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
        self.about().kind
    }

    /// What its program says of it.
    pub(super) fn about(self) -> About {
        match self {
            Self::Dma => About {
                kind: "dma",
                summary: "DMA engine with a page generator that live-migrates in mid-flight",
            },
        }
    }
}

/// A `dma` device with this many workers.
pub(super) fn dma(workers: u32) -> anyhow::Result<Arc<dyn DeviceModel>> {
    let lanes = Lanes::new(workers).with_context(|| format!("{workers} workers: there can be 1 to 64"))?;
    Ok(Arc::new(DmaModel { lanes }))
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
