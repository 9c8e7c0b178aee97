//! DEVICE_GET_REGION_INFO and DEVICE_GET_REGION_IO_FDS.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use vfio_user_check::client::Message;
use vfio_user_check::wire::{Command, RegionIoFds, consts};
use zerocopy::IntoBytes;

use super::{Control, asked, control, put, u32_at};
use crate::proxy::{Rule, Verdict, done};

use Command::{DeviceGetRegionInfo as Info, DeviceGetRegionIoFds as IoFds};

/// Offset of the region's index in the request.
const INDEX: usize = 8;

pub(super) fn controls() -> Vec<Control> {
    let mut controls = info();
    controls.extend(io_fds());
    controls
}

fn an_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")
}

fn has_caps(reply: &Message) -> bool {
    u32_at(reply, 4) & consts::REGION_FLAG_CAPS != 0
}

fn info() -> Vec<Control> {
    vec![
        control("region/every-region-is-described", || {
            Rule::edits(
                Info,
                |m| u32_at(m, INDEX) == 3,
                |_, reply| put(reply, INDEX, &[2]),
            )
        }),
        control("region/unknown-regions-are-refused", || {
            Rule::pretends(Info, |m| u32_at(m, INDEX) > 8, |_| vec![0; 32])
        }),
        control("region/config-space-is-there", || {
            Rule::edits(
                Info,
                |m| asked(m) && u32_at(m, INDEX) == 7,
                |_, reply| put(reply, 16, &[0; 8]),
            )
        }),
        control("region/less-room-is-kept-to", || {
            Rule::pretends(Info, |m| u32_at(m, 0) < 32, |_| vec![0; 32])
        }),
        control("region/capabilities-wait-for-room", || {
            Rule::edits(
                Info,
                |m| u32_at(m, 0) == 32,
                |_, reply| put(reply, 0, &32_u32.to_le_bytes()),
            )
        }),
        control("region/capabilities-are-in-the-reply", || {
            Rule::edits(Info, asked, |_, reply| {
                if has_caps(reply) {
                    put(reply, 12, &0x8000_u32.to_le_bytes());
                }
            })
        }),
        // As the kernel answers, whose users know it; QEMU's client of vfio-user does not.
        control("region/capabilities-are-in-the-reply", || {
            Rule::edits(
                Info,
                |m| asked(m) && u32_at(m, 0) == 32,
                |_, reply| {
                    let flags = u32_at(reply, 4) | consts::REGION_FLAG_CAPS;
                    put(reply, 4, &flags.to_le_bytes());
                },
            )
        }),
        control("region/what-can-be-mapped-has-a-file", || {
            Rule::edits(Info, asked, |_, reply| reply.fds.clear())
        }),
        control("region/sparse-areas-are-in-the-region", || {
            Rule::edits(Info, asked, |_, reply| {
                if has_caps(reply) {
                    // The size of the first area of the first capability.
                    let size = u32_at(reply, 12) as usize + 24;
                    put(reply, size, &(1_u64 << 40).to_le_bytes());
                }
            })
        }),
        control("region/what-can-be-mapped-is-mapped", || {
            Rule::edits(Info, asked, |_, reply| {
                if !reply.fds.is_empty() {
                    reply.fds = vec![an_eventfd()];
                }
            })
        }),
    ]
}

/// A server whose region 0 has one sub-region with an eventfd; its descriptor's index is this.
fn has_io_fds(fd_index: u32) -> Rule {
    Rule::Request(Box::new(move |message| {
        let is_asked = message.header.command == IoFds as u16 && u32_at(message, INDEX) == 0;
        if !is_asked || u32_at(message, 0) < 56 {
            return Verdict::Forward;
        }
        let head = RegionIoFds {
            argsz: 56,
            count: 1,
            ..RegionIoFds::default()
        };
        let mut payload = head.as_bytes().to_vec();
        for word in [0, 4, u64::from(fd_index), 0, 0] {
            payload.extend(word.to_le_bytes());
        }
        let mut reply = done(message, payload);
        reply.fds.push(an_eventfd());
        Verdict::Answer(reply)
    }))
}

fn io_fds() -> Vec<Control> {
    vec![
        control("region/io-fds-are-well-formed", || has_io_fds(1)).on(|| vec![has_io_fds(0)]),
        control("region/io-fds-of-unknown-regions-are-refused", || {
            Rule::pretends(IoFds, |m| u32_at(m, INDEX) > 8, |_| vec![0; 16])
        }),
        control("region/io-fds-keep-to-the-room", || {
            Rule::pretends(IoFds, |m| u32_at(m, 0) < 56, |_| vec![0; 56])
        }),
    ]
}
