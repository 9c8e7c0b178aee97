//! Messages as such: headers, replies, order, and what is no proper message.

mod hostile;
mod replies;

use zerocopy::IntoBytes;

use crate::client::Client;
use crate::conform::check::{Check, Checked, Source};
use crate::wire::{Command, DeviceInfo, Header, RegionAccess, consts};

const HEADER: Source = Source::Spec("Header");

/// Config space: the interrupt line, a byte that the device keeps and does not use.
const INTERRUPT_LINE: u64 = 0x3c;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = replies::checks();
    checks.extend(hostile::checks());
    checks
}

fn get_info() -> DeviceInfo {
    DeviceInfo {
        argsz: size_of::<DeviceInfo>() as u32,
        ..DeviceInfo::default()
    }
}

/// A GET_INFO as bytes.
fn get_info_bytes(id: u16) -> Vec<u8> {
    let header = Header::command(id, Command::DeviceGetInfo, size_of::<DeviceInfo>());
    [header.as_bytes(), get_info().as_bytes()].concat()
}

/// A write of config space's interrupt line, as bytes.
fn write_line(id: u16, value: u8, region: u32, flags: u32) -> Vec<u8> {
    let access = RegionAccess {
        offset: INTERRUPT_LINE,
        region,
        count: 1,
    };
    let mut header = Header::command(id, Command::RegionWrite, size_of::<RegionAccess>() + 1);
    header.flags |= flags;
    [header.as_bytes(), access.as_bytes(), &[value]].concat()
}

/// Whether a plain write to the interrupt line is read back.
fn line_is_kept(client: &mut Client) -> Checked<bool> {
    let mut line = [0];
    client.region_write(consts::REGION_CONFIG, INTERRUPT_LINE, &[0x3c])?;
    client.region_read(consts::REGION_CONFIG, INTERRUPT_LINE, &mut line)?;
    Ok(line == [0x3c])
}
