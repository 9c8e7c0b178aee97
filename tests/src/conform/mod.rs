//! A conformance test of any vfio-user server: every message of the specification, good and bad.
//!
//! * [`Check`]: one promise of the protocol, where it is written down, and how it is tried.
//! * [`registry`]: all of them, and the choice by name.
//! * [`Subject`]: the server under test, its sockets and, if it is to be started here, its process.
//! * [`run()`]: tries checks one after the other; a server that hangs or dies fails one of them and not the run.
//! * [`report`]: the outcome as text, TAP, JUnit and JSON.
//!
//! A check asserts what the specification demands, or the kernel's VFIO interface where the specification refers to it, and
//! nothing else: its [`Source`] names the place. What a server need not have (migration, DMA logging, MSI-X…) makes the checks
//! of it skipped with the reason. Whether a device's *writes* are reported can only be seen with a device that can be told to
//! write; the only driver here is that of `dma`.
//!
//! It does not measure, and it is no fuzzer: each run sends the same messages.

mod ask;
mod check;
mod checks;
mod drive;
mod expect;
mod needs;
mod probe;
mod process;
pub mod registry;
pub mod report;
mod run;
mod subject;

pub use check::{Check, Checked, Source, Stop};
pub use run::{CheckReport, Observer, Report, Silent, Verdict, run};
pub use subject::{Subject, SubjectError};
