//! What a check is, and how it ends.

use std::borrow::Cow;
use std::fmt;

use super::probe::Probe;
use super::subject::SubjectError;
use crate::client;
use crate::driver::DriverError;
use crate::migrate::MigrateError;
use crate::vmm::{MemoryError, VmError};

/// How the body of a check ends.
pub type Checked<T = ()> = Result<T, Stop>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The server does not have what the check is about, or nothing here can try it.
    Skip(String),
    /// The server broke the promise.
    Fail(String),
}

/// Ends a check that cannot be made.
pub(super) fn skip<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Skip(reason.into()))
}

/// Ends a check whose promise is broken.
pub(super) fn fail<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Fail(reason.into()))
}

/// An error with what led to it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

impl From<client::Error> for Stop {
    fn from(error: client::Error) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<SubjectError> for Stop {
    fn from(error: SubjectError) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<VmError> for Stop {
    fn from(error: VmError) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<MemoryError> for Stop {
    fn from(error: MemoryError) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<DriverError> for Stop {
    fn from(error: DriverError) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<MigrateError> for Stop {
    fn from(error: MigrateError) -> Self {
        Self::Fail(chain(&error))
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// Where a promise is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A section of the specification, QEMU's `docs/interop/vfio-user.rst`.
    Spec(&'static str),
    /// A part of `linux/vfio.h`, to which the specification refers.
    Uapi(&'static str),
    /// What the kernel does where `linux/vfio.h` refers to its code, or says nothing of a request that cannot be carried out.
    Kernel(&'static str),
    /// An extension in this project's `docs/src/protocol.md`; asked of servers that announce it.
    Extension(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(section) => write!(f, "vfio-user.rst, {section}"),
            Self::Uapi(part) => write!(f, "linux/vfio.h, {part}"),
            Self::Kernel(place) => write!(f, "Linux, {place}"),
            Self::Extension(section) => write!(f, "pagetrail's protocol.md, {section}"),
        }
    }
}

type Body = dyn Fn(&Probe<'_>) -> Checked + Send + Sync;

/// One promise, and how it is tried.
pub struct Check {
    name: Cow<'static, str>,
    source: Source,
    about: Cow<'static, str>,
    body: Box<Body>,
}

impl Check {
    /// A check called `name` (`topic/what-is-promised`) of what `source` says, in words `about`.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        source: Source,
        about: impl Into<Cow<'static, str>>,
        body: impl Fn(&Probe<'_>) -> Checked + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            source,
            about: about.into(),
            body: Box::new(body),
        }
    }

    /// Its name: topic, slash, promise.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the promise is written down.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The promise in a sentence.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Tries it.
    pub(super) fn run(&self, probe: &Probe<'_>) -> Checked {
        (self.body)(probe)
    }
}
