//! The model's side of the protocol.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use vfio_user_check::client::{Connection, Deadline, Error, Message};
use vfio_user_check::wire::{
    Command, DeviceFeature, DeviceInfo, DmaLoggingReport, DmaMap, DmaUnmap, Header, IrqInfo, MigData,
    MigDeviceState, MigState, Migration, PrecopyInfo, RegionAccess, RegionInfo, consts,
};
use zerocopy::IntoBytes;

use super::Fault;
use super::device::{Answer, Device};

const POLL: Duration = Duration::from_millis(20);

pub(super) fn serve(socket: OwnedFd, device: &Mutex<Device>, stop: &AtomicBool, fault: Fault) {
    let mut connection = Connection::from_socket(socket);
    let mut slow = fault == Fault::SlowOnce;
    while !stop.load(Ordering::Relaxed) {
        let request = match connection.receive_raw(Deadline::after(POLL)) {
            Ok(request) => request,
            Err(Error::Timeout { .. }) => continue,
            Err(_) => return,
        };
        let handshake = request.command() == Some(Command::Version);
        if fault == Fault::Silent && !handshake {
            continue;
        }
        if request.command() == Some(Command::RegionRead) && std::mem::take(&mut slow) {
            std::thread::sleep(Duration::from_millis(300));
        }
        let header = request.header;
        let answer = answer(&mut device.lock(), request);
        let mut reply = match &answer {
            Ok(payload) => Header::reply_to(&header, payload.len()),
            Err(errno) => Header::error_to(&header, *errno),
        };
        if fault == Fault::WrongId && !handshake {
            reply.id = reply.id.wrapping_add(100);
        }
        let bytes = [reply.as_bytes(), &answer.unwrap_or_default()].concat();
        if connection
            .send_raw(&bytes, &[], Deadline::after(Duration::from_secs(2)))
            .is_err()
        {
            return;
        }
    }
}

fn parse<T: zerocopy::FromBytes>(request: &Message) -> Answer<T> {
    request.parse().map_err(|_| consts::EINVAL)
}

fn answer(device: &mut Device, mut request: Message) -> Answer<Vec<u8>> {
    match request.command().ok_or(consts::ENOTSUP)? {
        Command::Version => Ok([
            &[0, 0, 1, 0],
            br#"{"capabilities":{"max_msg_fds":8}}"#.as_slice(),
            &[0],
        ]
        .concat()),
        Command::DeviceGetInfo => {
            let info = DeviceInfo {
                argsz: 16,
                flags: consts::DEVICE_FLAGS_PCI | consts::DEVICE_FLAGS_RESET,
                num_regions: 9,
                num_irqs: 5,
            };
            Ok(info.as_bytes().to_vec())
        }
        Command::DeviceGetRegionInfo => Ok(RegionInfo {
            argsz: 32,
            flags: consts::REGION_FLAG_READ | consts::REGION_FLAG_WRITE,
            size: 0x2000,
            ..parse(&request)?
        }
        .as_bytes()
        .to_vec()),
        Command::DeviceGetIrqInfo => {
            let info = IrqInfo {
                count: 0,
                ..parse(&request)?
            };
            Ok(info.as_bytes().to_vec())
        }
        Command::DeviceSetIrqs => Ok(Vec::new()),
        Command::DeviceReset => {
            device.reset();
            Ok(Vec::new())
        }
        Command::DmaMap => {
            let map: DmaMap = parse(&request)?;
            let fd = request.fds.pop().ok_or(consts::EINVAL)?;
            device.map(map.address, map.size, File::from(fd), map.offset)?;
            Ok(Vec::new())
        }
        Command::DmaUnmap => {
            let unmap: DmaUnmap = parse(&request)?;
            device.unmap(unmap.address, unmap.size)?;
            Ok(unmap.as_bytes().to_vec())
        }
        Command::RegionRead => read_region(device, &request),
        Command::RegionWrite => write_region(device, &request),
        Command::DeviceFeature => feature(device, &request),
        Command::MigDataRead => {
            let read: MigData = parse(&request)?;
            let data = device.read_state(read.size as usize)?;
            let head = MigData {
                argsz: 8 + data.len() as u32,
                size: data.len() as u32,
            };
            Ok([head.as_bytes(), &data].concat())
        }
        Command::MigDataWrite => {
            device.write_state(&request.payload[size_of::<MigData>()..])?;
            Ok(Vec::new())
        }
        Command::MigGetPrecopyInfo => Ok(PrecopyInfo {
            argsz: 24,
            ..PrecopyInfo::default()
        }
        .as_bytes()
        .to_vec()),
        _ => Err(consts::ENOTSUP),
    }
}

fn read_region(device: &mut Device, request: &Message) -> Answer<Vec<u8>> {
    let access: RegionAccess = parse(request)?;
    let count = access.count as usize;
    let data = match access.region {
        consts::REGION_CONFIG => device
            .config
            .get(access.offset as usize..access.offset as usize + count)
            .map(<[u8]>::to_vec),
        consts::REGION_BAR0 => device
            .read_register(access.offset)
            .to_le_bytes()
            .get(..count)
            .map(<[u8]>::to_vec),
        _ => None,
    };
    Ok([access.as_bytes(), &data.ok_or(consts::EINVAL)?].concat())
}

fn write_region(device: &mut Device, request: &Message) -> Answer<Vec<u8>> {
    let access: RegionAccess = parse(request)?;
    let data = &request.payload[size_of::<RegionAccess>()..];
    match access.region {
        consts::REGION_CONFIG => {
            let start = access.offset as usize;
            let target = device
                .config
                .get_mut(start..start + data.len())
                .ok_or(consts::EINVAL)?;
            // Vendor and device are read-only.
            if start >= 4 {
                target.copy_from_slice(data);
            }
        }
        consts::REGION_BAR0 if data.len() <= 8 => {
            let mut value = [0; 8];
            value[..data.len()].copy_from_slice(data);
            device.write_register(access.offset, u64::from_le_bytes(value));
        }
        _ => return Err(consts::EINVAL),
    }
    Ok(access.as_bytes().to_vec())
}

fn feature(device: &mut Device, request: &Message) -> Answer<Vec<u8>> {
    let head: DeviceFeature = parse(request)?;
    let body = &request.payload[size_of::<DeviceFeature>()..];
    let with = |data: &[u8]| Ok([head.as_bytes(), data].concat());
    if head.flags & consts::FEATURE_PROBE != 0 {
        return with(&[]);
    }
    match head.flags & consts::FEATURE_MASK {
        consts::FEATURE_MIGRATION => {
            let flags = consts::MIGRATION_STOP_COPY | consts::MIGRATION_P2P | consts::MIGRATION_PRE_COPY;
            with(Migration { flags }.as_bytes())
        }
        consts::FEATURE_MIG_DEVICE_STATE if head.flags & consts::FEATURE_SET != 0 => {
            let (wanted, _) = <MigDeviceState as zerocopy::FromBytes>::read_from_prefix(body)
                .map_err(|_| consts::EINVAL)?;
            device.set_state(MigState::from_wire(wanted.device_state).ok_or(consts::EINVAL)?)?;
            with(wanted.as_bytes())
        }
        consts::FEATURE_MIG_DEVICE_STATE => with(
            MigDeviceState {
                device_state: device.state as u32,
                data_fd: u32::MAX,
            }
            .as_bytes(),
        ),
        consts::FEATURE_DMA_LOGGING_START => {
            device.start_logging()?;
            with(body)
        }
        consts::FEATURE_DMA_LOGGING_STOP => {
            device.stop_logging();
            with(&[])
        }
        consts::FEATURE_DMA_LOGGING_REPORT => {
            let (report, _) = <DmaLoggingReport as zerocopy::FromBytes>::read_from_prefix(body)
                .map_err(|_| consts::EINVAL)?;
            let bitmap = device.report(report.iova, report.length, report.page_size)?;
            with(&[report.as_bytes(), &bitmap].concat())
        }
        _ => Err(consts::ENOTTY),
    }
}
