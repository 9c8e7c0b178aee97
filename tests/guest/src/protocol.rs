//! What a test asks the agent, and what it answers: one JSON object to a line, in both directions.
//!
//! A line can get lost where a VM is moved from one serial port to the next, so each answer has the number of its request, and a
//! test that gets none asks again. No command does harm when it is run twice.

use serde::{Deserialize, Serialize};

use crate::generator::Generator;

/// The parameter of the kernel's command line with the memory that the kernel leaves to the devices: `BASE:SIZE`, in bytes.
pub const WINDOW_PARAMETER: &str = "pagetrail.window=";

/// MSI-X vectors of a device.
pub const VECTORS: usize = 4;

/// A line to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// A number for the answer.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// A line from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    pub answer: Answer,
}

/// What the agent can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Look for devices, set up those that are new, forget those that have gone, and report.
    Hello,
    /// Keep the rings of all devices at work, with a check of each batch.
    StartWork,
    /// Start the generators of all devices.
    StartGenerators {
        /// Page writes per second and device; 0 is flat out.
        rate: u64,
        /// Page writes per lane after which they stop; 0 is no limit.
        limit: u64,
        /// Seed; each device adds its number.
        seed: u64,
    },
    /// Report while everything goes on.
    Report,
    /// Bring everything to a standstill, look at every byte, and report.
    Check,
    /// Let each ring do one piece of work, take its interrupt, and leave its cause unacknowledged.
    Hold,
    /// Acknowledge what [`Hold`](Self::Hold) left.
    Release,
    /// Reset all devices through the kernel and set them up again.
    Reset,
    /// Reset the machine. There is no answer; the agent that starts next has another `boot`.
    Reboot,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The command was run; this is how things are.
    Report(Report),
    /// The command could not be run.
    Error(String),
}

/// How things are in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The kernel's boot id.
    pub boot: String,
    /// The devices, by their PCI address.
    pub devices: Vec<DeviceReport>,
}

/// How a device and its driver are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// PCI address.
    pub address: String,
    /// IOVA of all memory that the device is told to write, and its bytes.
    pub region: (u64, u64),
    /// IOVA of the descriptors' arena, its bytes, and the CRC-32C of what it must hold. The CRC is that of the last standstill.
    pub arena: (u64, u64, u32),
    /// The generator, from its first start on.
    pub generator: Option<GeneratorReport>,
    /// Batches of descriptors done and checked.
    pub batches: u64,
    /// A hash of all batches in their order, as of the last standstill.
    pub history: u64,
    /// Interrupts that the CPU took, vector by vector.
    pub interrupts: [u64; VECTORS],
    /// Causes that the driver found set and acknowledged.
    pub acknowledged: [u64; VECTORS],
    /// What was wrong, oldest first. Empty is what a test wants to see.
    pub errors: Vec<String>,
}

/// How a generator is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorReport {
    /// What it was told.
    pub generator: Generator,
    /// Writes done, lane by lane.
    pub positions: Vec<u64>,
    /// Whether it may be writing.
    pub enabled: bool,
}

#[cfg(test)]
mod tests {
    use super::{Answer, Command, Reply, Report, Request};

    #[test]
    fn a_request_and_an_answer_are_one_line_each() {
        let request = Request {
            id: 7,
            command: Command::StartGenerators {
                rate: 0,
                limit: 5,
                seed: 1,
            },
        };
        let text = serde_json::to_string(&request).expect("JSON");
        assert!(!text.contains('\n'));
        assert_eq!(
            serde_json::from_str::<Request>(&text).expect("a request"),
            request
        );

        let reply = Reply {
            id: 7,
            answer: Answer::Report(Report::default()),
        };
        let text = serde_json::to_string(&reply).expect("JSON");
        assert_eq!(serde_json::from_str::<Reply>(&text).expect("a reply"), reply);
    }
}
