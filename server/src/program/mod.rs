//! A program that serves devices, by the vfio-user specification's "Backend Program Conventions": `--socket-path`, `--fd`,
//! SIGTERM, no daemonising, and a JSON description for `/usr/share/vfio-user`.
//!
//! [`Program`] is all that a program with one device needs: its options, its log, its signals and the service manager.
//! A program with options of its own takes it in among them:
//!
//! ```no_run
//! use clap::Parser;
//! use pagetrail::devices::dma::{DmaModel, Lanes};
//! use pagetrail::program::{About, Program};
//!
//! #[derive(Parser)]
//! struct Options {
//!     #[command(flatten)]
//!     program: Program,
//! }
//!
//! const ABOUT: About = About { kind: "dma", summary: "DMA engine with one worker" };
//!
//! fn main() -> std::process::ExitCode {
//!     let model = DmaModel { lanes: Lanes::new(1).expect("1 to 64") };
//!     Options::parse().program.run(ABOUT, model)
//! }
//! ```
//!
//! The parts are there for programs of another shape, as `pagetrail` itself is: [`DeviceArgs`] and [`LogArgs`] for the command line,
//! [`Activation`] for sockets of the service manager, and [`serve`] to run several devices.
//!
//! Not here: opening sockets and serving clients, which are the [`host`](crate::host)'s.

mod args;
mod description;
mod inherited;
mod launch;
mod limits;
mod logging;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;

pub use args::{DeviceArgs, EndpointArgs, LogArgs, LogFormat};
pub use description::{About, DescriptionError};
pub use inherited::{Activation, SocketError};
pub use launch::{ServeError, serve};
pub use logging::FilterError;

use crate::device::DeviceModel;
use crate::host::VmConfig;

/// The command line of a program that serves one device.
#[derive(Debug, clap::Args)]
pub struct Program {
    #[command(flatten)]
    device: DeviceArgs,

    #[command(flatten)]
    log: LogArgs,

    /// Print the JSON description for /usr/share/vfio-user, and serve nothing.
    #[arg(long, conflicts_with_all = ["socket_path", "fd"])]
    describe: bool,
}

impl Program {
    /// Serves a device of `model` until SIGTERM, or until the client that came connected has gone. The status is for `main` to
    /// return; what went wrong has been said.
    #[must_use]
    pub fn run(self, about: About, model: impl DeviceModel + 'static) -> ExitCode {
        let format = self.log.format;
        if let Err(error) = self.log.init() {
            return LogFormat::Text.fail(about.kind, &error.into());
        }
        match self.try_run(about, model) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => format.fail(about.kind, &error),
        }
    }

    fn try_run(self, about: About, model: impl DeviceModel + 'static) -> anyhow::Result<()> {
        if self.describe {
            print!("{}", about.describe(&own_path()?)?);
            return Ok(());
        }
        let model: Arc<dyn DeviceModel> = Arc::new(model);
        let device = self.device.config(about.kind, model)?;
        serve(vec![VmConfig {
            name: "vm".to_owned(),
            devices: vec![device],
        }])?;
        Ok(())
    }
}

/// Where this program is installed.
fn own_path() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}
