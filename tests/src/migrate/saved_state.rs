//! The devices' side of a migration: states, and the stream of saved state.

use super::MigrateError;
use crate::client;
use crate::vmm::{Device, Vm, VmError};
use crate::wire::{Command, MigState, consts};

/// What the devices of a VM can do, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    flags: u64,
}

impl Support {
    /// Asks every device.
    ///
    /// # Errors
    ///
    /// A device that does not migrate, or several of which one has no P2P states: those cannot be stopped together.
    pub fn of(vm: &mut Vm) -> Result<Self, MigrateError> {
        let several = vm.device_count() > 1;
        let mut flags = u64::MAX;
        for device in vm.devices() {
            let name = device.name().to_owned();
            let answer = match device.client().migration_flags() {
                Ok(answer) => answer,
                Err(client::Error::Server { .. }) => return Err(MigrateError::NotMigratable(name)),
                Err(source) => {
                    let doing = "asking for migration support";
                    return Err(VmError::Device {
                        device: name,
                        doing,
                        source,
                    }
                    .into());
                }
            };
            if several && answer & consts::MIGRATION_P2P == 0 {
                return Err(MigrateError::NoP2p(name));
            }
            flags &= answer;
        }
        Ok(Self { flags })
    }

    /// The same, but that the devices are to be left in RUNNING until they stop.
    #[must_use]
    pub fn without_pre_copy(self) -> Self {
        Self {
            flags: self.flags & !consts::MIGRATION_PRE_COPY,
        }
    }

    /// Whether state can be read while the devices run.
    pub fn pre_copy(self) -> bool {
        self.flags & consts::MIGRATION_PRE_COPY != 0
    }

    /// Whether there are P2P states.
    pub fn p2p(self) -> bool {
        self.flags & consts::MIGRATION_P2P != 0
    }

    /// Begins to save, while the devices run.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn begin_saving(self, vm: &mut Vm) -> Result<(), VmError> {
        if self.pre_copy() {
            set_all(vm, MigState::PreCopy)?;
        }
        Ok(())
    }

    /// Stops the devices: first all from each other, then each for good.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn stop(self, vm: &mut Vm) -> Result<(), VmError> {
        match (self.p2p(), self.pre_copy()) {
            (true, true) => set_all(vm, MigState::PreCopyP2p)?,
            (true, false) => set_all(vm, MigState::RunningP2p)?,
            (false, _) => {}
        }
        set_all(vm, MigState::StopCopy)
    }

    /// Starts the devices of a destination whose streams are complete.
    ///
    /// # Errors
    ///
    /// A device that refuses.
    pub fn start(self, vm: &mut Vm) -> Result<(), VmError> {
        if self.p2p() {
            set_all(vm, MigState::RunningP2p)?;
        }
        set_all(vm, MigState::Running)
    }
}

/// Brings every device to `state`.
fn set_all(vm: &mut Vm, state: MigState) -> Result<(), VmError> {
    let doing = match state {
        MigState::PreCopy => "starting pre-copy",
        MigState::StopCopy => "stopping the device",
        MigState::Resuming => "starting to resume",
        MigState::Running => "starting the device",
        _ => "changing the migration state",
    };
    vm.each(doing, |device| device.client().set_mig_state(state))
        .map(drop)
}

/// Lets every device of a destination load.
///
/// # Errors
///
/// A device that refuses.
pub fn resume(vm: &mut Vm) -> Result<(), VmError> {
    set_all(vm, MigState::Resuming)
}

/// Lets one device of a destination load.
pub(super) fn resume_device(vm: &mut Vm, index: usize) -> Result<(), VmError> {
    vm.with(index, "starting to resume", |device| {
        device.client().set_mig_state(MigState::Resuming)
    })
}

/// Takes the devices of a source back to running.
///
/// # Errors
///
/// A device that refuses.
pub fn cancel_saving(vm: &mut Vm) -> Result<(), VmError> {
    set_all(vm, MigState::Running)
}

/// Most bytes of state read in one pass while the device runs: one that always has more must not hold the passes up.
const PRE_COPY_PASS: usize = 64 << 20;

/// Most bytes of state of a stopped device: one that never ends is at fault.
const STOP_COPY: usize = 4 << 30;

/// Reads the state that a running device has to give at present.
///
/// # Errors
///
/// See [`client::Client::call`].
pub fn read_available(device: &mut Device, most: u32) -> client::Result<Vec<u8>> {
    let chunk = chunk_size(device, most);
    let mut stream = Vec::new();
    while stream.len() < PRE_COPY_PASS {
        let data = device.client().mig_data_read(chunk)?;
        if data.is_empty() {
            break;
        }
        stream.extend_from_slice(&data);
    }
    Ok(stream)
}

/// Reads the rest of a stopped device's state, up to the empty answer that ends it.
///
/// # Errors
///
/// See [`client::Client::call`]; a stream without end is a violation.
pub fn read_stream(device: &mut Device, most: u32) -> client::Result<Vec<u8>> {
    let chunk = chunk_size(device, most);
    let mut stream = Vec::new();
    loop {
        let data = device.client().mig_data_read(chunk)?;
        if data.is_empty() {
            return Ok(stream);
        }
        stream.extend_from_slice(&data);
        if stream.len() > STOP_COPY {
            return Err(client::Error::Protocol {
                command: Command::MigDataRead,
                violation: client::Violation::Field {
                    field: "the length of the stream",
                    value: stream.len() as u64,
                },
            });
        }
    }
}

/// Writes state to a device that loads.
///
/// # Errors
///
/// See [`client::Client::call`].
pub fn write_stream(device: &mut Device, stream: &[u8], most: u32) -> client::Result<()> {
    let chunk = chunk_size(device, most) as usize;
    stream
        .chunks(chunk)
        .try_for_each(|part| device.client().mig_data_write(part))
}

/// Bytes of state that go into one message to or from this device.
fn chunk_size(device: &mut Device, most: u32) -> u32 {
    let limit = device.client().capabilities().max_data_xfer_size();
    most.min(u32::try_from(limit).unwrap_or(u32::MAX)).max(1)
}
