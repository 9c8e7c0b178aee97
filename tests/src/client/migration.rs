//! Requests about migration and DMA logging.

use zerocopy::{FromBytes, IntoBytes};

use super::bitmap::DirtyReport;
use super::error::{Error, Result, Violation};
use super::session::Client;
use crate::wire::{
    Command, DeviceFeature, DmaLoggingControl, DmaLoggingRange, DmaLoggingReport, MigData, MigDataSize,
    MigDeviceState, MigState, Migration, PrecopyInfo, consts,
};

/// A range of IOVAs to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggingRange {
    /// First IOVA.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}

impl Client {
    /// Gets or sets a feature: `data` is the request's, the answer is the reply's.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn feature(&mut self, flags: u32, data: &[&[u8]], reply_data: usize) -> Result<Vec<u8>> {
        let command = Command::DeviceFeature;
        let head = size_of::<DeviceFeature>();
        let sent: usize = data.iter().map(|part| part.len()).sum();
        let request = DeviceFeature {
            argsz: (head + sent.max(reply_data)) as u32,
            flags,
        };
        let payload: Vec<&[u8]> = std::iter::once(request.as_bytes())
            .chain(data.iter().copied())
            .collect();
        let (_, mut reply) = self.exchange::<DeviceFeature>(command, &payload, &[])?;
        let mut answer = std::mem::take(&mut reply.payload);
        answer.drain(..head);
        if answer.len() < reply_data {
            return Err(Error::Protocol {
                command,
                violation: Violation::Short {
                    expected: reply_data,
                    got: answer.len(),
                },
            });
        }
        Ok(answer)
    }

    fn get_feature<T: FromBytes>(&mut self, feature: u32) -> Result<T> {
        let bytes = self.feature(feature | consts::FEATURE_GET, &[], size_of::<T>())?;
        let (value, _) = T::read_from_prefix(&bytes).map_err(|_| Error::Protocol {
            command: Command::DeviceFeature,
            violation: Violation::Short {
                expected: size_of::<T>(),
                got: bytes.len(),
            },
        })?;
        Ok(value)
    }

    /// Whether the feature can be used as `methods` (`FEATURE_GET`, `FEATURE_SET`) say.
    ///
    /// # Errors
    ///
    /// Anything but an error reply, which means "no".
    pub fn probe_feature(&mut self, feature: u32, methods: u32) -> Result<bool> {
        match self.feature(feature | methods | consts::FEATURE_PROBE, &[], 0) {
            Ok(_) => Ok(true),
            Err(Error::Server { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `consts::MIGRATION_*` of the device.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]; a device that does not migrate answers with an errno.
    pub fn migration_flags(&mut self) -> Result<u64> {
        self.get_feature::<Migration>(consts::FEATURE_MIGRATION)
            .map(|migration| migration.flags)
    }

    /// The migration state.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]; a state that does not exist is a violation.
    pub fn mig_state(&mut self) -> Result<MigState> {
        let state: MigDeviceState = self.get_feature(consts::FEATURE_MIG_DEVICE_STATE)?;
        known_state(state.device_state)
    }

    /// Moves the device to `state`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an arc that does not exist; see [`Client::call`].
    pub fn set_mig_state(&mut self, state: MigState) -> Result<()> {
        self.set_mig_state_raw(state as u32).map(drop)
    }

    /// Moves the device to the state with this number and returns the data of the reply.
    ///
    /// # Errors
    ///
    /// As [`Self::set_mig_state`].
    pub fn set_mig_state_raw(&mut self, device_state: u32) -> Result<MigDeviceState> {
        let request = MigDeviceState {
            device_state,
            data_fd: u32::MAX,
        };
        let flags = consts::FEATURE_MIG_DEVICE_STATE | consts::FEATURE_SET;
        let bytes = self.feature(flags, &[request.as_bytes()], 0)?;
        Ok(MigDeviceState::read_from_prefix(&bytes).map_or(request, |(state, _)| state))
    }

    /// Reads up to `size` bytes of the device's state. An empty answer means: nothing at present (pre-copy), or the end
    /// (stop-copy).
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn mig_data_read(&mut self, size: u32) -> Result<Vec<u8>> {
        let command = Command::MigDataRead;
        let head = size_of::<MigData>();
        let request = MigData {
            argsz: head as u32 + size,
            size,
        };
        let (answer, mut reply) = self.exchange::<MigData>(command, &[request.as_bytes()], &[])?;
        let mut data = std::mem::take(&mut reply.payload);
        data.drain(..head);
        if answer.size > size || data.len() < answer.size as usize {
            return Err(Error::Protocol {
                command,
                violation: Violation::Field {
                    field: "the size of the migration data",
                    value: answer.size.into(),
                },
            });
        }
        // Some servers send as many bytes as were asked for, whatever the size says.
        data.truncate(answer.size as usize);
        Ok(data)
    }

    /// Writes a part of a device's state.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]; the write that completes a bad stream may be the one that fails.
    pub fn mig_data_write(&mut self, data: &[u8]) -> Result<()> {
        let request = MigData {
            argsz: (size_of::<MigData>() + data.len()) as u32,
            size: data.len() as u32,
        };
        self.call(Command::MigDataWrite, &[request.as_bytes(), data], &[])
            .map(drop)
    }

    /// An upper bound of the bytes from here to the end of the stream. Extension of this project.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn mig_data_size(&mut self) -> Result<u64> {
        self.get_feature::<MigDataSize>(consts::FEATURE_MIG_DATA_SIZE)
            .map(|size| size.stop_copy_length)
    }

    /// How much there is to read in pre-copy. Extension of this project.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of pre-copy; see [`Client::call`].
    pub fn precopy_info(&mut self) -> Result<PrecopyInfo> {
        let request = PrecopyInfo {
            argsz: size_of::<PrecopyInfo>() as u32,
            ..PrecopyInfo::default()
        };
        Ok(self
            .exchange(Command::MigGetPrecopyInfo, &[request.as_bytes()], &[])?
            .0)
    }

    /// Starts DMA logging; no ranges stand for the whole address space.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn logging_start(&mut self, page_size: u64, ranges: &[LoggingRange]) -> Result<()> {
        let control = DmaLoggingControl {
            page_size,
            num_ranges: ranges.len() as u32,
            reserved: 0,
        };
        let ranges: Vec<DmaLoggingRange> = ranges
            .iter()
            .map(|range| DmaLoggingRange {
                iova: range.iova,
                length: range.length,
            })
            .collect();
        let flags = consts::FEATURE_DMA_LOGGING_START | consts::FEATURE_SET;
        self.feature(flags, &[control.as_bytes(), ranges.as_slice().as_bytes()], 0)
            .map(drop)
    }

    /// Stops DMA logging.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn logging_stop(&mut self) -> Result<()> {
        self.feature(consts::FEATURE_DMA_LOGGING_STOP | consts::FEATURE_SET, &[], 0)
            .map(drop)
    }

    /// Reads and clears the log of `length` bytes from `iova` on.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]. Any error means that the log of the range is lost.
    pub fn logging_report(&mut self, iova: u64, length: u64, page_size: u64) -> Result<DirtyReport> {
        let request = DmaLoggingReport {
            iova,
            length,
            page_size,
        };
        let head = size_of::<DmaLoggingReport>();
        let bytes = DirtyReport::words_for(length, page_size) * 8;
        let flags = consts::FEATURE_DMA_LOGGING_REPORT | consts::FEATURE_GET;
        let answer = self.feature(flags, &[request.as_bytes()], head + bytes)?;
        let report = DirtyReport::from_wire(iova, page_size, &answer[head..head + bytes]);
        if report.has_bits_past(length) {
            return Err(Error::Protocol {
                command: Command::DeviceFeature,
                violation: Violation::BitsOutside,
            });
        }
        Ok(report)
    }
}

fn known_state(number: u32) -> Result<MigState> {
    MigState::from_wire(number).ok_or(Error::Protocol {
        command: Command::DeviceFeature,
        violation: Violation::Field {
            field: "the migration state",
            value: number.into(),
        },
    })
}
