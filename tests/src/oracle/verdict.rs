//! What the oracle found.

use std::fmt;

use serde::Serialize;

/// How a page was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// It changed, and no later report named it. The destination happens to have the same content.
    NeverReported,
    /// The destination has another content.
    Differs {
        /// First byte that differs.
        byte: usize,
    },
}

/// A page that was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostPage {
    /// The page.
    pub iova: u64,
    /// The pass in which it was seen first.
    pub pass: u32,
    /// How.
    pub loss: Loss,
    /// The devices that write there, as far as is known.
    pub devices: Vec<String>,
}

impl LostPage {
    pub(super) fn new(iova: u64, pass: u32, loss: Loss) -> Self {
        Self {
            iova,
            pass,
            loss,
            devices: Vec::new(),
        }
    }
}

impl fmt::Display for LostPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {:#x} (pass {}): ", self.iova, self.pass)?;
        match self.loss {
            Loss::NeverReported => write!(f, "written, and no later report names it")?,
            Loss::Differs { byte } => write!(f, "differs at the destination from byte {byte} on")?,
        }
        if !self.devices.is_empty() {
            write!(f, "; written by {}", self.devices.join(", "))?;
        }
        Ok(())
    }
}

/// The oracle's judgement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether anything was looked at.
    pub checked: bool,
    /// Pages that changed unreported for a while, and were named by a later report: writes in flight, as they should be.
    pub cleared_suspects: u64,
    /// Pages that were lost.
    pub lost: Vec<LostPage>,
}

impl Verdict {
    /// Whether nothing was lost.
    pub fn passed(&self) -> bool {
        self.lost.is_empty()
    }
}
