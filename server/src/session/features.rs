//! DEVICE_FEATURE, and the messages that carry a migration's data.

use rustix::io::Errno;

use super::Session;
use crate::migration::MigState;
use crate::wire::feature::{
    FEATURE_MASK, Feature, FeatureOps, Migration, MigrationDataSize, MigrationState, NO_DATA_FD, number,
};
use crate::wire::migration::{MigrationData, PrecopyInfo};
use crate::wire::{self, MAX_DATA_XFER_SIZE};

/// The operations of a feature, other than being probed.
fn operations(feature: u32) -> Option<FeatureOps> {
    match feature {
        number::MIG_DEVICE_STATE => Some(FeatureOps::GET | FeatureOps::SET),
        number::MIGRATION | number::DMA_LOGGING_REPORT | number::MIG_DATA_SIZE => Some(FeatureOps::GET),
        number::DMA_LOGGING_START | number::DMA_LOGGING_STOP => Some(FeatureOps::SET),
        _ => None,
    }
}

/// Whether a feature is one of devices that migrate.
pub(super) fn is_of_migration(feature: u32) -> bool {
    matches!(
        feature,
        number::MIGRATION | number::MIG_DEVICE_STATE | number::MIG_DATA_SIZE
    )
}

impl Session {
    pub(super) fn feature(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (header, data) = wire::split::<Feature>(payload)?;
        let feature = header.flags & FEATURE_MASK;
        let asked = FeatureOps::from_bits(header.flags & !FEATURE_MASK).ok_or(Errno::INVAL)?;
        // As the kernel does: ENOTTY for a feature that is not there, EINVAL for one used wrongly.
        let supported = operations(feature).ok_or(Errno::NOTTY)?;
        #[cfg(feature = "fault-injection")]
        if self.broken.hides(feature) {
            return Err(Errno::NOTTY);
        }
        if is_of_migration(feature) {
            self.backend.migration_flags()?;
        }
        if !supported.contains(asked - FeatureOps::PROBE) {
            return Err(Errno::INVAL);
        }
        if asked.contains(FeatureOps::PROBE) {
            return Ok(payload.to_vec());
        }
        let mut reply = match asked {
            FeatureOps::GET => self.get_feature(feature, header, data)?,
            FeatureOps::SET => self.set_feature(feature, header, data)?,
            _ => return Err(Errno::INVAL),
        };
        let argsz = u32::try_from(reply.len()).map_err(|_| Errno::TOOBIG)?;
        if header.argsz < argsz {
            return Err(Errno::INVAL);
        }
        reply[..size_of::<u32>()].copy_from_slice(&argsz.to_ne_bytes());
        Ok(reply)
    }

    fn get_feature(&self, feature: u32, header: Feature, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut reply = wire::bytes(&header);
        match feature {
            number::MIGRATION => reply.extend(wire::bytes(&Migration {
                flags: self.backend.migration_flags()?,
            })),
            number::MIG_DEVICE_STATE => reply.extend(wire::bytes(&self.migration_state()?)),
            number::MIG_DATA_SIZE => {
                let stop_copy_length = self.backend.migration_data_size()?;
                reply.extend(wire::bytes(&MigrationDataSize { stop_copy_length }));
            }
            _ => self.report(data, header.argsz as usize, &mut reply)?,
        }
        Ok(reply)
    }

    fn set_feature(&self, feature: u32, header: Feature, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut reply = wire::bytes(&header);
        if (header.argsz as usize) < reply.len() + data.len() {
            return Err(Errno::INVAL);
        }
        match feature {
            number::DMA_LOGGING_START => {
                self.start_logging(data)?;
                reply.extend(data);
            }
            number::DMA_LOGGING_STOP if data.is_empty() => self.stop_logging()?,
            number::MIG_DEVICE_STATE => {
                let (asked, _) = wire::split::<MigrationState>(data)?;
                let asked = MigState::try_from(asked.device_state).map_err(|_| Errno::INVAL)?;
                self.backend.set_migration_state(asked)?;
                reply.extend(wire::bytes(&self.migration_state()?));
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(reply)
    }

    fn migration_state(&self) -> Result<MigrationState, Errno> {
        Ok(MigrationState {
            device_state: self.backend.migration_state()?.into(),
            data_fd: NO_DATA_FD,
        })
    }

    pub(super) fn migration_read(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (request, _) = wire::split::<MigrationData>(payload)?;
        let header = size_of::<MigrationData>();
        let size = request.size as usize;
        if size > MAX_DATA_XFER_SIZE || (request.argsz as usize) < header + size {
            return Err(Errno::INVAL);
        }
        let mut reply = vec![0; header + size];
        let read = self.backend.read_migration_data(&mut reply[header..])?;
        #[cfg(feature = "fault-injection")]
        self.broken.corrupt(&mut reply[header..header + read]);
        reply.truncate(header + read);
        let head = MigrationData {
            argsz: reply.len() as u32,
            size: read as u32,
        };
        reply[..header].copy_from_slice(&wire::bytes(&head));
        Ok(reply)
    }

    pub(super) fn migration_write(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (request, data) = wire::split::<MigrationData>(payload)?;
        if request.size as usize != data.len() || data.len() > MAX_DATA_XFER_SIZE {
            return Err(Errno::INVAL);
        }
        self.backend.write_migration_data(data)?;
        Ok(Vec::new())
    }

    pub(super) fn precopy_info(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (request, _) = wire::split::<PrecopyInfo>(payload)?;
        let argsz = size_of::<PrecopyInfo>() as u32;
        if request.argsz < argsz || request.flags != 0 {
            return Err(Errno::INVAL);
        }
        let info = self.backend.precopy_info()?;
        let reply = PrecopyInfo {
            argsz,
            flags: 0,
            initial_bytes: info.initial_bytes,
            dirty_bytes: info.dirty_bytes,
        };
        Ok(wire::bytes(&reply))
    }
}
