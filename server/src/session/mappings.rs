//! DMA_MAP and DMA_UNMAP.

use std::os::fd::OwnedFd;

use pagetrail_tracker::{Iova, IovaRange, PageSize, ReportBitmap};
use rustix::io::Errno;

use super::Session;
use super::logging::log_errno;
use crate::guest::{Access, MapRequest};
use crate::wire::dma::{Bitmap, DmaMap, DmaUnmap, MapFlags, UnmapFlags};
use crate::wire::{self, MAX_DATA_XFER_SIZE};

impl Session {
    pub(super) fn dma_map(&self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Vec<u8>, Errno> {
        let (map, rest) = wire::split::<DmaMap>(payload)?;
        let flags = MapFlags::from_bits(map.flags).ok_or(Errno::INVAL)?;
        if !rest.is_empty() || flags.contains(MapFlags::FILE_IO) || fds.len() > 1 {
            return Err(Errno::INVAL);
        }
        let access = match (flags.contains(MapFlags::READ), flags.contains(MapFlags::WRITE)) {
            (_, true) => Access::Write,
            (true, false) => Access::Read,
            (false, false) => return Err(Errno::INVAL),
        };
        let fd = fds.into_iter().next();
        if flags.contains(MapFlags::MMAP) && fd.is_none() {
            return Err(Errno::INVAL);
        }
        let request = MapRequest {
            iova: map.address,
            size: map.size,
            offset: map.offset,
            access,
            fd,
        };
        self.backend.map(request)?;
        Ok(Vec::new())
    }

    pub(super) fn dma_unmap(&self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (unmap, rest) = wire::split::<DmaUnmap>(payload)?;
        let flags = UnmapFlags::from_bits(unmap.flags).ok_or(Errno::INVAL)?;
        if flags == UnmapFlags::ALL {
            if unmap.address != 0 || unmap.size != 0 || !rest.is_empty() {
                return Err(Errno::INVAL);
            }
            self.backend.unmap_all()?;
            return Ok(wire::bytes(&unmap));
        }
        if flags == UnmapFlags::GET_DIRTY_BITMAP {
            return self.unmap_and_report(unmap, rest);
        }
        if !flags.is_empty() || !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        self.backend.unmap(unmap.address, unmap.size)?;
        Ok(wire::bytes(&unmap))
    }

    /// Unmaps, and answers with what was written there until then.
    fn unmap_and_report(&self, unmap: DmaUnmap, rest: &[u8]) -> Result<Vec<u8>, Errno> {
        let (bitmap, rest) = wire::split::<Bitmap>(rest)?;
        if !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        let range = IovaRange::from_len(Iova::new(unmap.address), unmap.size).map_err(|_| Errno::INVAL)?;
        let page_size = PageSize::new(bitmap.page_size).ok_or(Errno::INVAL)?;
        let needed = ReportBitmap::required_len(range, page_size).map_err(|_| Errno::INVAL)?;
        if bitmap.size < needed as u64 {
            return Err(Errno::INVAL);
        }
        if needed > MAX_DATA_XFER_SIZE {
            return Err(Errno::TOOBIG);
        }
        // Everything that can be refused must be refused before the mapping goes: the bits are handed over only once.
        self.refuse_if_failed()?;
        self.log.check_range(&range).map_err(|error| log_errno(&error))?;
        self.backend.unmap(unmap.address, unmap.size)?;
        let mut reply = wire::bytes(&unmap);
        reply.extend(wire::bytes(&Bitmap {
            page_size: bitmap.page_size,
            size: needed as u64,
        }));
        let header = reply.len();
        reply.resize(header + needed, 0);
        self.read_log(range, page_size, &mut reply[header..])?;
        Ok(reply)
    }
}
