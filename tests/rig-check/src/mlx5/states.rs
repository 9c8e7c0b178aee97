//! A virtual function's migration states and its data, by VFIO's migration interface.

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use vfio_ioctls::VfioError;

use super::Vf;

/// `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Stop = 1,
    Running = 2,
    StopCopy = 3,
    Resuming = 4,
    RunningP2p = 5,
    PreCopy = 6,
    PreCopyP2p = 7,
}

/// `VFIO_MIGRATION_STOP_COPY`, `VFIO_MIGRATION_P2P` and `VFIO_MIGRATION_PRE_COPY`.
const STOP_COPY_P2P_PRE_COPY: u64 = 0b111;
/// Bytes that are read at a time.
const CHUNK: usize = 10_000;

impl Vf {
    pub(super) fn ensure_migratable(&self) -> Result<()> {
        let flags = self.vfio.query_migration_support()?;
        ensure!(
            flags == Some(STOP_COPY_P2P_PRE_COPY),
            "the virtual function migrates with {flags:?}"
        );
        Ok(())
    }

    pub(super) fn set_state(&self, state: State) -> Result<()> {
        self.vfio
            .set_migration_state(state as u32)
            .with_context(|| format!("to {state:?}"))?;
        ensure!(self.is_in(state)?, "it is not {state:?} after it has been set so");
        Ok(())
    }

    pub(super) fn is_in(&self, state: State) -> Result<bool> {
        Ok(self.vfio.get_migration_state()? == state as u32)
    }

    /// What there is of data now, in pre-copy, and to the end, in stop-copy.
    pub(super) fn read_data(&self) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.vfio.read_migration_data(&mut chunk) {
                Ok(0) => return Ok(data),
                Ok(len) => data.extend_from_slice(&chunk[..len]),
                // For now, says the kernel, which only does so in pre-copy.
                Err(VfioError::VfioMigrationDataIo(error))
                    if Errno::from_io_error(&error) == Some(Errno::NOMSG) =>
                {
                    return Ok(data);
                }
                Err(error) => bail!("the data is not read: {error}"),
            }
        }
    }

    pub(super) fn write_data(&self, data: &[u8]) -> Result<()> {
        Ok(self.vfio.write_migration_data(data)?)
    }

    /// Takes the state in `data` over, and stops.
    pub(super) fn load(&self, data: &[u8]) -> Result<()> {
        self.set_state(State::Resuming)?;
        self.write_data(data)?;
        self.set_state(State::Stop)
    }
}
