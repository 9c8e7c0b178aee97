//! [`Regions`]: BARs, ROM and config space, by message and by mapping.
//!
//! What is read and written goes to the kernel as it is: its VFIO driver virtualises config space, and keeps the client from the
//! MSI-X table. A client that maps a BAR gets the device's own file; of a BAR with the MSI-X table it is told to map the rest.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::kernel::{Area, Device, DeviceInfo, Region};
use super::msix::{self, MsixTable};
use crate::wire::region::{
    CONFIG_REGION, DeviceFlags, DeviceInfo as DeviceInfoLayout, RegionAccess, RegionFlags, RegionInfo,
    SPARSE_MMAP, SparseArea, SparseMmap,
};
use crate::wire::{MAX_DATA_XFER_SIZE, bytes, split};

/// Where config space has the command register, and in it the leave to begin DMA (PCI Local Bus 3.0, section 6.2.2).
const COMMAND: u64 = 0x04;
const BUS_MASTER: u16 = 1 << 2;

/// Whether the client gets the device's file to map BARs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarAccess {
    /// It does: its accesses need nobody.
    Mapped,
    /// It does not: every access is a message.
    Messages,
}

/// The regions of a device.
#[derive(Debug)]
pub(super) struct Regions {
    info: DeviceInfo,
    /// By index; `None` where the kernel has none.
    regions: Vec<Option<Described>>,
}

/// A region and what a client is told of it.
#[derive(Debug)]
struct Described {
    region: Region,
    /// What the client may map.
    areas: Vec<Area>,
}

/// The answer to GET_REGION_INFO.
pub(super) struct Information {
    pub(super) payload: Vec<u8>,
    /// The file to map from, if there is something to map.
    pub(super) file: Option<OwnedFd>,
}

impl Regions {
    /// Asks `device` what it has.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub(super) fn of(device: &dyn Device, access: BarAccess) -> io::Result<Self> {
        let info = device.info()?;
        let mut regions = Vec::new();
        for index in 0..info.regions {
            // A region that a device may have and does not: the VGA's.
            let region = device.region(index).ok().filter(|region| region.size > 0);
            regions.push(region);
        }
        let table = match regions.get(CONFIG_REGION as usize) {
            Some(Some(config)) => msix::find_table(device, config)?,
            _ => None,
        };
        let regions = (0..).zip(regions).map(|(index, region)| {
            let region = region?;
            let areas = match access {
                BarAccess::Mapped => areas(index, &region, table),
                BarAccess::Messages => Vec::new(),
            };
            Some(Described { region, areas })
        });
        Ok(Self {
            info,
            regions: regions.collect(),
        })
    }

    /// Whether the device has a reset of its own.
    pub(super) fn can_reset(&self) -> bool {
        self.info.flags.contains(DeviceFlags::RESET)
    }

    /// GET_INFO.
    pub(super) fn device_info(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (request, _) = split::<DeviceInfoLayout>(payload)?;
        let argsz = size_of::<DeviceInfoLayout>() as u32;
        if request.argsz < argsz {
            return Err(Errno::INVAL);
        }
        Ok(bytes(&DeviceInfoLayout {
            argsz,
            flags: self.info.flags.bits(),
            num_regions: self.info.regions,
            num_irqs: self.info.irqs,
        }))
    }

    /// GET_REGION_INFO. Without room for what can be mapped, the client learns how much that takes, and asks again.
    pub(super) fn region_info(&self, device: &dyn Device, payload: &[u8]) -> Result<Information, Errno> {
        let (request, _) = split::<RegionInfo>(payload)?;
        let header = size_of::<RegionInfo>();
        if (request.argsz as usize) < header || request.index >= self.info.regions {
            return Err(Errno::INVAL);
        }
        let none = Described {
            region: Region::default(),
            areas: Vec::new(),
        };
        let described = self.region(request.index).unwrap_or(&none);
        let capability = capability(&described.areas);
        let has_room = request.argsz as usize >= header + capability.len();
        let has_areas = !described.areas.is_empty();
        let mut flags = described.region.flags & (RegionFlags::READ | RegionFlags::WRITE);
        if has_areas {
            flags |= RegionFlags::MMAP;
        }
        // Claimed without being there, as the kernel does, it has QEMU refuse the device.
        if has_areas && has_room {
            flags |= RegionFlags::CAPS;
        }
        let mut payload = bytes(&RegionInfo {
            argsz: (header + capability.len()) as u32,
            flags: flags.bits(),
            index: request.index,
            cap_offset: if has_areas && has_room { header as u32 } else { 0 },
            size: described.region.size,
            offset: if has_areas { described.region.offset } else { 0 },
        });
        let mut file = None;
        if has_areas && has_room {
            payload.extend(capability);
            let own = device.file().try_clone_to_owned();
            file = Some(own.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?);
        }
        Ok(Information { payload, file })
    }

    /// REGION_READ.
    pub(super) fn read(&self, device: &dyn Device, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (access, _) = split::<RegionAccess>(payload)?;
        let region = self.accessed(&access, RegionFlags::READ)?;
        let mut reply = bytes(&access);
        let header = reply.len();
        reply.resize(header + access.count as usize, 0);
        let mut done = 0;
        while done < access.count as usize {
            let at = region.offset + access.offset + done as u64;
            let read = device.read_at(&mut reply[header + done..], at);
            match read.map_err(|error| errno(&error))? {
                0 => return Err(Errno::IO),
                read => done += read,
            }
        }
        Ok(reply)
    }

    /// REGION_WRITE.
    pub(super) fn write(&self, device: &dyn Device, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (access, data) = split::<RegionAccess>(payload)?;
        let region = self.accessed(&access, RegionFlags::WRITE)?;
        if data.len() != access.count as usize {
            return Err(Errno::INVAL);
        }
        let mut done = 0;
        while done < data.len() {
            let at = region.offset + access.offset + done as u64;
            let written = device.write_at(&data[done..], at);
            match written.map_err(|error| errno(&error))? {
                0 => return Err(Errno::IO),
                written => done += written,
            }
        }
        Ok(bytes(&access))
    }

    /// Reads config space at `offset`.
    pub(super) fn read_config<const N: usize>(
        &self,
        device: &dyn Device,
        offset: u64,
    ) -> io::Result<[u8; N]> {
        let config = self.region(CONFIG_REGION).ok_or(io::ErrorKind::NotFound)?;
        let mut value = [0; N];
        msix::read_whole(device, &config.region, offset, &mut value)?;
        Ok(value)
    }

    /// Takes the bus from the device: it begins no DMA from now on, and what it began has arrived when this returns.
    ///
    /// A read from a device comes after what it wrote before (PCI Express Base Specification, section 2.4.1).
    pub(super) fn stop_dma(&self, device: &dyn Device) -> io::Result<()> {
        let config = self.region(CONFIG_REGION).ok_or(io::ErrorKind::NotFound)?;
        let [low, high] = self.read_config(device, COMMAND)?;
        let command = u16::from_le_bytes([low, high]) & !BUS_MASTER;
        device.write_at(&command.to_le_bytes(), config.region.offset + COMMAND)?;
        self.read_config::<2>(device, COMMAND).map(drop)
    }

    fn region(&self, index: u32) -> Option<&Described> {
        self.regions.get(index as usize)?.as_ref()
    }

    /// The region that an access lies in.
    fn accessed(&self, access: &RegionAccess, needed: RegionFlags) -> Result<&Region, Errno> {
        let count = access.count;
        if count as usize > MAX_DATA_XFER_SIZE {
            return Err(Errno::INVAL);
        }
        let region = &self.region(access.region).ok_or(Errno::INVAL)?.region;
        let end = access.offset.checked_add(count.into()).ok_or(Errno::INVAL)?;
        if !region.flags.contains(needed) || end > region.size {
            return Err(Errno::INVAL);
        }
        Ok(region)
    }
}

/// Whether the payload of an access names config space.
pub(super) fn is_of_config(payload: &[u8]) -> bool {
    split::<RegionAccess>(payload).is_ok_and(|(access, _)| access.region == CONFIG_REGION)
}

/// What of a region may be mapped: what the kernel allows, without the pages of the MSI-X table.
fn areas(index: u32, region: &Region, table: Option<MsixTable>) -> Vec<Area> {
    if !region.flags.contains(RegionFlags::MMAP) {
        return Vec::new();
    }
    let whole = Area {
        offset: 0,
        size: region.size,
    };
    let allowed = region.areas.clone().unwrap_or_else(|| vec![whole]);
    let page = rustix::param::page_size() as u64;
    match table.filter(|table| table.bar == index) {
        Some(table) => allowed
            .into_iter()
            .flat_map(|area| without(area, table.pages(page)))
            .collect(),
        None => allowed,
    }
}

/// The parts of an area before and behind `hole`.
fn without(area: Area, hole: std::ops::Range<u64>) -> impl Iterator<Item = Area> {
    let end = area.offset + area.size;
    let before = area.offset..hole.start.min(end);
    let behind = hole.end.max(area.offset)..end;
    [before, behind]
        .into_iter()
        .filter(|part| part.start < part.end)
        .map(|part| Area {
            offset: part.start,
            size: part.end - part.start,
        })
}

/// The capability that names areas; nothing without any.
fn capability(areas: &[Area]) -> Vec<u8> {
    if areas.is_empty() {
        return Vec::new();
    }
    let mut capability = bytes(&SparseMmap {
        id: SPARSE_MMAP,
        version: 1,
        next: 0,
        nr_areas: areas.len() as u32,
        reserved: 0,
    });
    for area in areas {
        capability.extend(bytes(&SparseArea {
            offset: area.offset,
            size: area.size,
        }));
    }
    capability
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests;
