//! `dma` devices in sysfs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::protocol::VECTORS;
use crate::regs;

const DEVICES: &str = "/sys/bus/pci/devices";

/// A function on the PCI bus.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Function(String);

impl Function {
    /// Every `dma` device that is there and has its kernel driver, by address.
    pub(super) fn all() -> Result<Vec<Self>> {
        let mut functions = Vec::new();
        for entry in fs::read_dir(DEVICES)? {
            let function = Self(entry?.file_name().to_string_lossy().into_owned());
            if function.id("vendor") == Some(regs::VENDOR)
                && function.id("device") == Some(regs::DEVICE)
                && function.vectors().is_ok()
            {
                functions.push(function);
            }
        }
        functions.sort();
        Ok(functions)
    }

    /// Its address, for example `0000:01:00.0`.
    pub(super) fn address(&self) -> &str {
        &self.0
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(DEVICES).join(&self.0).join(name)
    }

    fn id(&self, name: &str) -> Option<u16> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    }

    /// The character devices of its MSI-X vectors, vector by vector.
    pub(super) fn vectors(&self) -> Result<[PathBuf; VECTORS]> {
        let mut vectors = vec![PathBuf::new(); VECTORS];
        for entry in fs::read_dir(self.path("uio")).context("no driver has taken the device")? {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("name"))?;
            let vector: usize = name.trim().parse()?;
            *vectors.get_mut(vector).context("a vector too many")? =
                PathBuf::from("/dev").join(entry.file_name());
        }
        let vectors: [PathBuf; VECTORS] = vectors.try_into().expect("as many as there are vectors");
        let complete = vectors.iter().all(|path| path.exists());
        complete.then_some(vectors).context("a vector is missing")
    }

    /// Resets the function through the kernel, which keeps its configuration space.
    pub(super) fn reset(&self) -> Result<()> {
        fs::write(self.path("reset"), "1").with_context(|| format!("resetting {}", self.0))
    }
}
