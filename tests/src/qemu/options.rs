//! What a VM is made of: QEMU's command line.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use pagetrail_guest::protocol::WINDOW_PARAMETER;
use serde_json::json;

/// How much memory a VM has: whole mebibytes, as many as [`DMA_WINDOW`] needs or more, and none above the first 2 GiB, where a PC has a
/// hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// The least: all of it is compared byte by byte after each migration.
    pub const LEAST: Self = Self(256 << 20);
    /// The most.
    pub const MOST: Self = Self(2 << 30);

    /// So many bytes, if a VM can have them.
    pub fn new(bytes: u64) -> Option<Self> {
        let can_be = (Self::LEAST.0..=Self::MOST.0).contains(&bytes) && bytes.is_multiple_of(1 << 20);
        can_be.then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Memory that the guest's kernel leaves to the devices.
pub const DMA_WINDOW: Range<u64> = 128 << 20..224 << 20;

/// Root ports, each with room for one device.
pub const PORTS: usize = 4;

/// Where QEMU's firmware may be; QEMU looks in its own places as well.
const FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// A device: the root port it is in, and its server's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSocket {
    /// Number of the port, from 0.
    pub port: usize,
    /// The socket.
    pub path: PathBuf,
}

impl DeviceSocket {
    /// The device's name in QEMU.
    pub fn id(&self) -> String {
        format!("dma{}", self.port)
    }

    /// The device as `device_add` and `-device` take it.
    pub fn arguments(&self) -> serde_json::Value {
        json!({
            "driver": "vfio-user-pci",
            "id": self.id(),
            "bus": format!("port{}", self.port),
            "socket": {"type": "unix", "path": self.path},
        })
    }
}

/// What the VM does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It boots.
    Boot,
    /// It waits for a migration, and does not run when that has ended.
    Incoming,
}

/// A VM to be.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// QEMU.
    pub binary: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// The guest's initrd, with the agent in it.
    pub initrd: PathBuf,
    /// How much memory it has.
    pub memory: MemorySize,
    /// Its devices.
    pub devices: Vec<DeviceSocket>,
    /// Arguments in front of the devices, for example an IOMMU.
    pub extra: Vec<String>,
    /// More parameters for the guest's kernel.
    pub kernel_parameters: Vec<String>,
    /// What it does first.
    pub start: Start,
}

/// Where the VM can be talked to.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    pub(super) qmp: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) console: PathBuf,
}

impl Sockets {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        Self {
            qmp: folder.join(format!("{name}.qmp")),
            agent: folder.join(format!("{name}.agent")),
            console: folder.join(format!("{name}.console")),
        }
    }
}

impl MachineOptions {
    /// The whole command line.
    pub(super) fn command(&self, sockets: &Sockets) -> Command {
        let mut command = Command::new(&self.binary);
        let mebibytes = self.memory.bytes() >> 20;
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1"])
            .args(["-machine", "q35,memory-backend=ram,usb=off,vmport=off,hpet=off"])
            .args(["-m", &format!("{mebibytes}M")])
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=ram,size={mebibytes}M,share=on"));
        for folder in FIRMWARE.iter().filter(|folder| Path::new(folder).is_dir()) {
            command.args(["-L", folder]);
        }
        command
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .args(["-append", &kernel_parameters(&self.kernel_parameters)]);
        command
            .args(["-serial", &format!("file:{}", sockets.console.display())])
            .arg("-chardev")
            .arg(format!(
                "socket,id=agent,path={},server=on,wait=off",
                sockets.agent.display()
            ))
            .args(["-serial", "chardev:agent"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", sockets.qmp.display()))
            .args(&self.extra);
        for port in 0..PORTS {
            // Of a slow link the kernel does not ask after a reset whether it is up, which QEMU does not tell of a conventional
            // PCI device.
            let port = format!(
                "pcie-root-port,id=port{port},bus=pcie.0,addr={:#x},chassis={},slot={},x-speed=2_5",
                port + 1,
                port + 1,
                port + 1
            );
            command.args(["-device", &port]);
        }
        for device in &self.devices {
            command.args(["-device", &device.arguments().to_string()]);
        }
        if self.start == Start::Incoming {
            command.args(["-S", "-incoming", "defer"]);
        }
        command
    }
}

fn kernel_parameters(more: &[String]) -> String {
    let size = DMA_WINDOW.end - DMA_WINDOW.start;
    format!(
        "console=ttyS0 quiet panic=-1 {} memmap={}M${}M {WINDOW_PARAMETER}{}:{size}",
        more.join(" "),
        size >> 20,
        DMA_WINDOW.start >> 20,
        DMA_WINDOW.start,
    )
}

#[cfg(test)]
mod tests {
    use super::{DMA_WINDOW, MemorySize, kernel_parameters};

    #[test]
    fn the_devices_window_lies_in_memory_and_is_named_twice() {
        const { assert!(DMA_WINDOW.end <= MemorySize::LEAST.0) };
        let line = kernel_parameters(&[]);
        assert!(line.contains(" memmap=96M$128M "), "{line}");
        assert!(line.ends_with("window=134217728:100663296"), "{line}");
    }

    #[test]
    fn a_vm_has_whole_mebibytes_up_to_the_hole() {
        let of = |bytes| MemorySize::new(bytes).map(MemorySize::bytes);
        for good in [256 << 20, 257 << 20, 2 << 30] {
            assert_eq!(of(good), Some(good));
        }
        for bad in [0, 255 << 20, (256 << 20) + 4096, (2 << 30) + (1 << 20), u64::MAX] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
