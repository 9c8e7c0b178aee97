//! The requests every device answers: what it is, its regions, its interrupts, guest memory, reset.

use std::os::fd::{BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, IntoBytes};

use super::bitmap::DirtyReport;
use super::error::{Error, Result, Violation};
use super::session::Client;
use crate::wire::{
    CapHeader, Command, DeviceInfo, DirtyBitmap, DmaMap, DmaUnmap, IrqInfo, IrqSet, RegionAccess, RegionInfo,
    SparseMmapArea, SparseMmapHeader, consts,
};

/// Room asked for in the reply to `DEVICE_GET_REGION_INFO`: the struct and a few hundred areas.
const REGION_INFO_ROOM: u32 = 8192;

/// Most capabilities of a region that are followed; a chain longer than this loops.
const MAX_REGION_CAPS: usize = 32;

/// A region and what of it can be mapped.
#[derive(Debug)]
pub struct RegionDescription {
    /// The server's answer.
    pub info: RegionInfo,
    /// Areas that can be mapped: those of the sparse capability, else the whole region, else none.
    pub areas: Vec<SparseMmapArea>,
    /// What to map.
    pub fd: Option<OwnedFd>,
}

/// What `DEVICE_SET_IRQS` does to vectors.
#[derive(Clone, Copy, Debug)]
pub enum IrqAction<'a> {
    /// Signal these file descriptors from now on; none takes the present ones away.
    Connect(&'a [BorrowedFd<'a>]),
    /// Signal the vectors once.
    Trigger,
    /// Mask the vectors.
    Mask,
    /// Unmask the vectors.
    Unmask,
    /// Take every vector of the index away.
    Disable,
}

/// What an unmap answers with.
#[derive(Debug)]
pub struct Unmapped {
    /// The mapping that is gone.
    pub unmap: DmaUnmap,
    /// The pages that were written and not reported before, if they were asked for.
    pub dirty: Option<DirtyReport>,
}

impl Client {
    /// What the device is.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn device_info(&mut self) -> Result<DeviceInfo> {
        let request = DeviceInfo {
            argsz: size_of::<DeviceInfo>() as u32,
            ..DeviceInfo::default()
        };
        Ok(self
            .exchange(Command::DeviceGetInfo, &[request.as_bytes()], &[])?
            .0)
    }

    /// What region `index` is.
    ///
    /// # Errors
    ///
    /// See [`Client::call`]; a capability chain that leaves the reply is a violation.
    pub fn region_info(&mut self, index: u32) -> Result<RegionDescription> {
        let command = Command::DeviceGetRegionInfo;
        let request = RegionInfo {
            argsz: REGION_INFO_ROOM,
            index,
            ..RegionInfo::default()
        };
        let (info, mut reply) = self.exchange::<RegionInfo>(command, &[request.as_bytes()], &[])?;
        let areas = mappable_areas(&info, &reply.payload)
            .map_err(|violation| Error::Protocol { command, violation })?;
        let fd = (!reply.fds.is_empty()).then(|| reply.fds.swap_remove(0));
        if fd.is_none() && !areas.is_empty() {
            return Err(Error::Protocol {
                command,
                violation: Violation::NoFd,
            });
        }
        Ok(RegionDescription { info, areas, fd })
    }

    /// Reads `target.len()` bytes of region `region`.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn region_read(&mut self, region: u32, offset: u64, target: &mut [u8]) -> Result<()> {
        let command = Command::RegionRead;
        let request = RegionAccess {
            offset,
            region,
            count: target.len() as u32,
        };
        let (answer, reply) = self.exchange::<RegionAccess>(command, &[request.as_bytes()], &[])?;
        let data = &reply.payload[size_of::<RegionAccess>()..];
        if answer.count != request.count || data.len() < target.len() {
            return Err(Error::Protocol {
                command,
                violation: Violation::Short {
                    expected: target.len(),
                    got: data.len().min(answer.count as usize),
                },
            });
        }
        target.copy_from_slice(&data[..target.len()]);
        Ok(())
    }

    /// Writes `data` to region `region`.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let command = Command::RegionWrite;
        let request = RegionAccess {
            offset,
            region,
            count: data.len() as u32,
        };
        let (answer, _) = self.exchange::<RegionAccess>(command, &[request.as_bytes(), data], &[])?;
        if answer.count != request.count {
            return Err(Error::Protocol {
                command,
                violation: Violation::Field {
                    field: "the count",
                    value: answer.count.into(),
                },
            });
        }
        Ok(())
    }

    /// What interrupt index `index` is.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn irq_info(&mut self, index: u32) -> Result<IrqInfo> {
        let request = IrqInfo {
            argsz: size_of::<IrqInfo>() as u32,
            index,
            ..IrqInfo::default()
        };
        Ok(self
            .exchange(Command::DeviceGetIrqInfo, &[request.as_bytes()], &[])?
            .0)
    }

    /// Does `action` to `count` vectors from `start` on. More file descriptors than the server takes in one message are
    /// sent in several.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn set_irqs(&mut self, index: u32, start: u32, count: u32, action: IrqAction<'_>) -> Result<()> {
        let (data, action_flag) = match action {
            IrqAction::Connect([]) | IrqAction::Disable | IrqAction::Trigger => {
                (consts::IRQ_SET_DATA_NONE, consts::IRQ_SET_ACTION_TRIGGER)
            }
            IrqAction::Connect(fds) => return self.connect_irqs(index, start, fds),
            IrqAction::Mask => (consts::IRQ_SET_DATA_NONE, consts::IRQ_SET_ACTION_MASK),
            IrqAction::Unmask => (consts::IRQ_SET_DATA_NONE, consts::IRQ_SET_ACTION_UNMASK),
        };
        let flags = match action {
            IrqAction::Connect(_) => consts::IRQ_SET_DATA_EVENTFD | action_flag,
            _ => data | action_flag,
        };
        let (start, count) = match action {
            IrqAction::Disable => (0, 0),
            _ => (start, count),
        };
        self.send_irq_set(index, flags, start, count, &[])
    }

    fn connect_irqs(&mut self, index: u32, start: u32, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let batch = self.capabilities().max_msg_fds().min(consts::SCM_MAX_FD);
        let flags = consts::IRQ_SET_DATA_EVENTFD | consts::IRQ_SET_ACTION_TRIGGER;
        for (number, fds) in fds.chunks(batch).enumerate() {
            let first = start + (number * batch) as u32;
            self.send_irq_set(index, flags, first, fds.len() as u32, fds)?;
        }
        Ok(())
    }

    fn send_irq_set(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let request = IrqSet {
            argsz: size_of::<IrqSet>() as u32,
            flags,
            index,
            start,
            count,
        };
        self.call(Command::DeviceSetIrqs, &[request.as_bytes()], fds)
            .map(drop)
    }

    /// Gives the device the memory that `fd` holds from `map.offset` on.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn dma_map(&mut self, map: DmaMap, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let request = DmaMap {
            argsz: size_of::<DmaMap>() as u32,
            ..map
        };
        self.call(Command::DmaMap, &[request.as_bytes()], fd.as_slice())
            .map(drop)
    }

    /// Takes a mapping away. When this returns the device writes no more to it.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn dma_unmap(&mut self, address: u64, size: u64) -> Result<Unmapped> {
        let request = DmaUnmap {
            argsz: size_of::<DmaUnmap>() as u32,
            flags: 0,
            address,
            size,
        };
        let (unmap, _) = self.exchange(Command::DmaUnmap, &[request.as_bytes()], &[])?;
        Ok(Unmapped { unmap, dirty: None })
    }

    /// Takes every mapping away.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn dma_unmap_all(&mut self) -> Result<()> {
        let request = DmaUnmap {
            argsz: size_of::<DmaUnmap>() as u32,
            flags: consts::DMA_UNMAP_ALL,
            ..DmaUnmap::default()
        };
        self.call(Command::DmaUnmap, &[request.as_bytes()], &[]).map(drop)
    }

    /// Takes a mapping away and reports what was written to it, in pages of `page_size` bytes.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn dma_unmap_dirty(&mut self, address: u64, size: u64, page_size: u64) -> Result<Unmapped> {
        let command = Command::DmaUnmap;
        let bytes = DirtyReport::words_for(size, page_size) * 8;
        let head = size_of::<DmaUnmap>() + size_of::<DirtyBitmap>();
        let request = DmaUnmap {
            argsz: (head + bytes) as u32,
            flags: consts::DMA_UNMAP_GET_DIRTY_BITMAP,
            address,
            size,
        };
        let room = DirtyBitmap {
            pgsize: page_size,
            size: bytes as u64,
        };
        let (unmap, reply) = self.exchange(command, &[request.as_bytes(), room.as_bytes()], &[])?;
        let Some(bitmap) = reply.payload.get(head..head + bytes) else {
            return Err(Error::Protocol {
                command,
                violation: Violation::Short {
                    expected: head + bytes,
                    got: reply.payload.len(),
                },
            });
        };
        let dirty = Some(DirtyReport::from_wire(address, page_size, bitmap));
        Ok(Unmapped { unmap, dirty })
    }

    /// Resets the device.
    ///
    /// # Errors
    ///
    /// See [`Client::call`].
    pub fn device_reset(&mut self) -> Result<()> {
        self.call(Command::DeviceReset, &[], &[]).map(drop)
    }
}

fn mappable_areas(info: &RegionInfo, payload: &[u8]) -> Result<Vec<SparseMmapArea>, Violation> {
    if info.flags & consts::REGION_FLAG_MMAP == 0 {
        return Ok(Vec::new());
    }
    let whole = SparseMmapArea {
        offset: 0,
        size: info.size,
    };
    if info.flags & consts::REGION_FLAG_CAPS == 0 {
        return Ok(vec![whole]);
    }
    let mut next = info.cap_offset as usize;
    for _ in 0..MAX_REGION_CAPS {
        if next == 0 {
            return Ok(vec![whole]);
        }
        let bytes = payload.get(next..).ok_or(Violation::Field {
            field: "a capability's offset",
            value: next as u64,
        })?;
        let (cap, rest) = CapHeader::read_from_prefix(bytes).map_err(|_| Violation::Size(info.argsz))?;
        if cap.id == consts::REGION_CAP_SPARSE_MMAP {
            return sparse_areas(info, rest);
        }
        next = cap.next as usize;
    }
    Err(Violation::Field {
        field: "the length of the capability chain",
        value: MAX_REGION_CAPS as u64,
    })
}

fn sparse_areas(info: &RegionInfo, bytes: &[u8]) -> Result<Vec<SparseMmapArea>, Violation> {
    let short = || Violation::Size(info.argsz);
    let (head, mut rest) = SparseMmapHeader::read_from_prefix(bytes).map_err(|_| short())?;
    let mut areas = Vec::new();
    for _ in 0..head.nr_areas {
        let (area, left) = SparseMmapArea::read_from_prefix(rest).map_err(|_| short())?;
        if area
            .offset
            .checked_add(area.size)
            .is_none_or(|end| end > info.size)
        {
            return Err(Violation::Field {
                field: "an area's offset",
                value: area.offset,
            });
        }
        areas.push(area);
        rest = left;
    }
    Ok(areas)
}
