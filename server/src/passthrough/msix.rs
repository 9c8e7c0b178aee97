//! Where a device's MSI-X table is, from its config space (PCI Local Bus 3.0, sections 6.7 and 6.8.2).

use std::io;
use std::ops::Range;

use super::kernel::{Device, Region};

/// Status register, and its bit for a list of capabilities.
const STATUS: u64 = 0x06;
const STATUS_CAP_LIST: u16 = 1 << 4;
/// Pointer to the first capability.
const CAP_LIST: u64 = 0x34;
/// ID of the MSI-X capability.
const CAP_MSIX: u8 = 0x11;
/// More capabilities than fit into config space are a loop.
const MOST_CAPABILITIES: usize = 48;
/// Bytes of an entry of the table.
const ENTRY: u64 = 16;

/// Where the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MsixTable {
    /// The BAR.
    pub(super) bar: u32,
    /// In the BAR, in bytes.
    offset: u64,
    /// Bytes.
    len: u64,
}

impl MsixTable {
    /// The pages of `page` bytes that the table touches, in bytes of the BAR.
    pub(super) fn pages(&self, page: u64) -> Range<u64> {
        let end = self.offset + self.len;
        self.offset - self.offset % page..end.next_multiple_of(page)
    }
}

/// The table of a device, if it has one.
///
/// # Errors
///
/// What the kernel said.
pub(super) fn find_table(device: &dyn Device, config: &Region) -> io::Result<Option<MsixTable>> {
    let mut status = [0; 2];
    read_whole(device, config, STATUS, &mut status)?;
    if u16::from_le_bytes(status) & STATUS_CAP_LIST == 0 {
        return Ok(None);
    }
    let mut pointer = [0];
    read_whole(device, config, CAP_LIST, &mut pointer)?;
    for _ in 0..MOST_CAPABILITIES {
        let at = u64::from(pointer[0] & !0b11);
        if at == 0 {
            return Ok(None);
        }
        let mut head = [0; 2];
        read_whole(device, config, at, &mut head)?;
        if head[0] == CAP_MSIX {
            return table_at(device, config, at).map(Some);
        }
        pointer = [head[1]];
    }
    Ok(None)
}

/// The table of the capability at `at`.
fn table_at(device: &dyn Device, config: &Region, at: u64) -> io::Result<MsixTable> {
    let mut capability = [0; 8];
    read_whole(device, config, at, &mut capability)?;
    let [_, _, control_low, control_high, a, b, c, d] = capability;
    let vectors = u64::from(u16::from_le_bytes([control_low, control_high]) & 0x7ff) + 1;
    let table = u32::from_le_bytes([a, b, c, d]);
    Ok(MsixTable {
        bar: table & 0b111,
        offset: (table & !0b111).into(),
        len: vectors * ENTRY,
    })
}

/// Reads all of `out` at `offset` of a region.
///
/// # Errors
///
/// What the kernel said, or that it has less.
pub(super) fn read_whole(
    device: &dyn Device,
    region: &Region,
    offset: u64,
    out: &mut [u8],
) -> io::Result<()> {
    let read = device.read_at(out, region.offset + offset)?;
    if read < out.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
