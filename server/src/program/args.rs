//! The options that every device program has.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::inherited::{self, Activation, SocketError};
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::guest::AllowedFiles;
use crate::host::{DeviceConfig, Endpoint, Model};

/// What is logged, and how. The log goes to stderr.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug or trace, also by module ("info,pagetrail::session=debug").
    #[arg(
        long = "log",
        value_name = "FILTER",
        env = "PAGETRAIL_LOG",
        default_value = "info",
        global = true,
        help_heading = "Log"
    )]
    pub filter: String,

    /// How the log is written.
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Log"
    )]
    pub format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object for each message.
    Json,
}

impl LogFormat {
    /// Says why the program ends; as a message of the log where something other than a person reads it.
    #[must_use]
    pub fn fail(self, program: &str, error: &anyhow::Error) -> ExitCode {
        match self {
            Self::Text => eprintln!("{program}: {error:#}"),
            Self::Json => tracing::error!("{error:#}"),
        }
        ExitCode::FAILURE
    }
}

/// A device's client, and its memory.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Where the client comes from.
    #[command(flatten)]
    pub endpoint: EndpointArgs,

    /// Take guest memory in files of any file system, and not only of tmpfs and hugetlbfs.
    ///
    /// A page that has to come from a disk or a network holds the device up, and with it the end of a migration.
    #[arg(long)]
    pub allow_any_file: bool,

    /// Lose pages in a certain way, for the tests of the migration checks.
    #[cfg(feature = "fault-injection")]
    #[arg(long = "fault", value_name = "KIND", help = format!("Lose pages on purpose: {}", Fault::FORMS))]
    pub faults: Vec<Fault>,
}

/// Where a device's client comes from. Without either, from the socket that the service manager passes.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct EndpointArgs {
    /// Make a Unix socket here and wait for clients. It is removed at the end.
    #[arg(long, value_name = "PATH")]
    pub socket_path: Option<PathBuf>,

    /// Use this inherited file descriptor: a Unix socket that listens, or one that is connected to the client.
    #[arg(long, value_name = "N")]
    pub fd: Option<RawFd>,
}

impl DeviceArgs {
    /// A device of `model` as the options have it. Takes the descriptor that was passed for it.
    ///
    /// # Errors
    ///
    /// [`SocketError`] when no socket was given, or none that can be served.
    pub fn config(self, name: &str, model: impl Into<Model>) -> Result<DeviceConfig, SocketError> {
        Ok(DeviceConfig {
            name: name.to_owned(),
            model: model.into(),
            endpoint: self.endpoint.open()?,
            files: AllowedFiles::from_option(self.allow_any_file),
            #[cfg(feature = "fault-injection")]
            faults: self.faults,
        })
    }
}

impl EndpointArgs {
    fn open(self) -> Result<Endpoint, SocketError> {
        match (self.socket_path, self.fd) {
            (Some(path), _) => Ok(Endpoint::Path(path)),
            (None, Some(fd)) => inherited::endpoint(fd),
            (None, None) => Activation::from_environment()?.take_only(),
        }
    }
}
