//! What scenarios are run with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::qemu::MemorySize;
use crate::spawn::ServerCommand;

/// Makes the command of a server process that listens at all of some sockets. A folder is for files that it needs.
///
/// `None`: one process of this server does not serve so many.
pub type Launcher = Arc<dyn Fn(&[PathBuf], &Path) -> io::Result<Option<Command>> + Send + Sync>;

/// Starts a server by its command line.
pub fn launcher(server: &ServerCommand) -> Launcher {
    let server = server.clone();
    Arc::new(move |sockets, _| Ok(server.at(sockets)))
}

/// Programs that a scenario puts together.
#[derive(Clone)]
pub struct Setup {
    /// QEMU with support for migration.
    pub qemu: PathBuf,
    /// QEMU as it comes, for scenarios without migration.
    pub stock_qemu: Option<PathBuf>,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initrd, with the agent in it.
    pub initrd: PathBuf,
    /// The guest's memory.
    pub memory: MemorySize,
    /// The server on one side.
    pub source: Launcher,
    /// The server on the other side.
    pub dest: Launcher,
    /// A server whose devices have other parameters, which must refuse the others' state.
    pub different: Option<Launcher>,
    /// A server whose devices do not migrate.
    pub unmigratable: Option<Launcher>,
}
