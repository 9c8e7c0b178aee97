//! The configuration file of `pagetrail serve`.
//!
//! Whatever is wrong with it is said with the file's name and the line, before any socket is made.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pagetrail::guest::AllowedFiles;
use pagetrail::host::{DeviceConfig, Endpoint, VmConfig};
use pagetrail::passthrough::{HostIommu, Leaves};
use pagetrail::program::Activation;
use serde::Deserialize;
use toml::Spanned;

use super::models::{self, Kind, Passthrough, Tracker};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    vm: Vec<Spanned<Vm>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Vm {
    name: Spanned<String>,
    #[serde(default)]
    large_pages: bool,
    iommufd: Option<PathBuf>,
    #[serde(default)]
    device: Vec<Spanned<Device>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Device {
    kind: Kind,
    name: Option<Spanned<String>>,
    socket_path: Option<Spanned<PathBuf>>,
    socket_activation: Option<Spanned<String>>,
    workers: Option<Spanned<u32>>,
    pci: Option<Spanned<String>>,
    #[serde(rename = "device")]
    cdev: Option<Spanned<PathBuf>>,
    no_bar_mmap: Option<Spanned<bool>>,
    tracker: Option<Spanned<Tracker>>,
    assume_all_dirty: Option<Spanned<bool>>,
    #[serde(default)]
    allow_any_file: bool,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mistake {
    line: usize,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Mistake {}

/// Reads the file, and takes the sockets that it names from the service manager.
///
/// # Errors
///
/// When it cannot be read, is not valid, or names sockets that were not passed.
pub(super) fn load(path: &Path) -> anyhow::Result<Vec<VmConfig>> {
    let in_file = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = parse(&text).with_context(in_file)?;
    let mut activation = Activation::from_environment()?;
    file.vm
        .into_iter()
        .map(|vm| vm_config(vm.into_inner(), &mut activation))
        .collect::<Result<_, _>>()
        .with_context(in_file)
}

/// Parses and checks everything that can be checked in the file alone.
fn parse(text: &str) -> anyhow::Result<File> {
    let file: File = toml::from_str(text)?;
    Checker {
        text,
        used: HashMap::new(),
    }
    .check(&file)?;
    Ok(file)
}

fn vm_config(vm: Vm, activation: &mut Activation) -> anyhow::Result<VmConfig> {
    let iommu = VmIommu {
        path: vm.iommufd.unwrap_or_else(|| HostIommu::PATH.into()),
        leaves: models::leaves(vm.large_pages),
        opened: OnceCell::new(),
    };
    let devices = vm.device.into_iter().enumerate();
    let devices =
        devices.map(|(index, device)| device_config(index, device.into_inner(), &iommu, activation));
    Ok(VmConfig {
        name: vm.name.into_inner(),
        devices: devices.collect::<Result<_, _>>()?,
    })
}

/// The iommufd of a VM, which is opened for its first passthrough device.
struct VmIommu {
    path: PathBuf,
    leaves: Leaves,
    opened: OnceCell<Arc<HostIommu>>,
}

impl VmIommu {
    fn get(&self) -> anyhow::Result<Arc<HostIommu>> {
        if let Some(opened) = self.opened.get() {
            return Ok(Arc::clone(opened));
        }
        let opened = HostIommu::open(&self.path, self.leaves)?;
        Ok(Arc::clone(self.opened.get_or_init(|| opened)))
    }
}

fn device_config(
    index: usize,
    device: Device,
    iommu: &VmIommu,
    activation: &mut Activation,
) -> anyhow::Result<DeviceConfig> {
    let name = device.name(index);
    let is_set = |value: Option<Spanned<bool>>| value.is_some_and(Spanned::into_inner);
    let model = match device.kind {
        Kind::Dma => models::dma(device.workers.map_or(1, Spanned::into_inner))?.into(),
        Kind::Vfio => models::passthrough(Passthrough {
            pci: device.pci.map(Spanned::into_inner),
            cdev: device.cdev.map(Spanned::into_inner),
            iommu: iommu.get()?,
            bar_mmap: !is_set(device.no_bar_mmap),
            tracker: device.tracker.map(Spanned::into_inner).unwrap_or_default(),
            assume_all_dirty: is_set(device.assume_all_dirty),
        })
        .with_context(|| format!("device {name:?}"))?
        .into(),
    };
    let endpoint = match (device.socket_path, device.socket_activation) {
        (Some(path), _) => Endpoint::Path(path.into_inner()),
        (None, name) => activation.take_named(&name.map(Spanned::into_inner).unwrap_or_default())?,
    };
    Ok(DeviceConfig {
        name,
        model,
        endpoint,
        files: AllowedFiles::from_option(device.allow_any_file),
        #[cfg(feature = "fault-injection")]
        faults: Vec::new(),
    })
}

impl Device {
    /// The name given, or one made of the kind and the device's number in its VM.
    fn name(&self, index: usize) -> String {
        match &self.name {
            Some(name) => name.get_ref().clone(),
            None => format!("{}{index}", self.kind.name()),
        }
    }
}

/// Looks for what types cannot rule out.
struct Checker<'a> {
    text: &'a str,
    /// What must be unique, and the line of its first use.
    used: HashMap<Unique, usize>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Unique {
    Vm(String),
    /// By VM.
    Device(String, String),
    Path(PathBuf),
    Activation(String),
    Pci(String),
    Cdev(PathBuf),
}

impl fmt::Display for Unique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(name) => write!(f, "VM {name:?}"),
            Self::Device(vm, name) => write!(f, "device {name:?} of VM {vm:?}"),
            Self::Path(path) => write!(f, "socket-path \"{}\"", path.display()),
            Self::Pci(address) => write!(f, "pci {address:?}"),
            Self::Cdev(path) => write!(f, "device \"{}\"", path.display()),
            Self::Activation(name) => write!(f, "socket-activation {name:?}"),
        }
    }
}

impl Checker<'_> {
    fn check(&mut self, file: &File) -> Result<(), Mistake> {
        if file.vm.is_empty() {
            return Err(Mistake {
                line: 1,
                what: "there is no [[vm]]".to_owned(),
            });
        }
        for vm in &file.vm {
            self.check_vm(vm)?;
        }
        Ok(())
    }

    fn check_vm(&mut self, spanned: &Spanned<Vm>) -> Result<(), Mistake> {
        let vm = spanned.get_ref();
        let name = vm.name.get_ref();
        self.check_name(name, vm.name.span().start)?;
        self.unique(Unique::Vm(name.clone()), vm.name.span().start)?;
        if vm.device.is_empty() {
            return Err(self.mistake(spanned.span().start, format!("VM {name:?} has no [[vm.device]]")));
        }
        for (index, device) in vm.device.iter().enumerate() {
            self.check_device(name, index, device)?;
        }
        Ok(())
    }

    fn check_device(&mut self, vm: &str, index: usize, spanned: &Spanned<Device>) -> Result<(), Mistake> {
        let device = spanned.get_ref();
        let begin = spanned.span().start;
        let name = device.name(index);
        let name_at = device.name.as_ref().map_or(begin, |name| name.span().start);
        self.check_name(&name, name_at)?;
        self.unique(Unique::Device(vm.to_owned(), name), name_at)?;
        self.check_workers(device)?;
        self.check_keys(device)?;
        self.check_source(device, begin)?;
        match (&device.socket_path, &device.socket_activation) {
            (Some(path), None) => self.check_path(path),
            (None, Some(name)) => self.unique(Unique::Activation(name.get_ref().clone()), name.span().start),
            (None, None) => Err(self.mistake(
                begin,
                "the device has no socket: give it socket-path or socket-activation".to_owned(),
            )),
            (Some(_), Some(name)) => {
                let what = "the device has two sockets: leave out socket-path or socket-activation";
                Err(self.mistake(name.span().start, what.to_owned()))
            }
        }
    }

    fn check_path(&mut self, path: &Spanned<PathBuf>) -> Result<(), Mistake> {
        if path.get_ref().as_os_str().is_empty() {
            return Err(self.mistake(path.span().start, "socket-path is empty".to_owned()));
        }
        // `a//b` and `a/./b` are the same socket.
        let path_in_parts = path.get_ref().components().collect();
        self.unique(Unique::Path(path_in_parts), path.span().start)
    }

    fn check_workers(&self, device: &Device) -> Result<(), Mistake> {
        let Some(workers) = &device.workers else {
            return Ok(());
        };
        models::dma(*workers.get_ref())
            .map(drop)
            .map_err(|error| self.mistake(workers.span().start, error.to_string()))
    }

    /// Refuses keys of another kind of device.
    fn check_keys(&self, device: &Device) -> Result<(), Mistake> {
        let at = |key: &'static str, span: Option<usize>| span.map(|start| (key, start));
        let of_dma = [at(
            "workers",
            device.workers.as_ref().map(|value| value.span().start),
        )];
        let of_vfio = [
            at("pci", device.pci.as_ref().map(|value| value.span().start)),
            at("device", device.cdev.as_ref().map(|value| value.span().start)),
            at(
                "no-bar-mmap",
                device.no_bar_mmap.as_ref().map(|value| value.span().start),
            ),
            at("tracker", device.tracker.as_ref().map(|value| value.span().start)),
            at(
                "assume-all-dirty",
                device.assume_all_dirty.as_ref().map(|value| value.span().start),
            ),
        ];
        let others = match device.kind {
            Kind::Dma => &of_vfio[..],
            Kind::Vfio => &of_dma[..],
        };
        match others.iter().flatten().next() {
            Some((key, start)) => {
                Err(self.mistake(*start, format!("a {} device has no {key}", device.kind.name())))
            }
            None => Ok(()),
        }
    }

    /// A passthrough device is named in one way, and once.
    fn check_source(&mut self, device: &Device, begin: usize) -> Result<(), Mistake> {
        match (device.kind, &device.pci, &device.cdev) {
            (Kind::Dma, ..) => Ok(()),
            (Kind::Vfio, Some(pci), None) => {
                self.unique(Unique::Pci(pci.get_ref().clone()), pci.span().start)
            }
            (Kind::Vfio, None, Some(path)) => {
                self.unique(Unique::Cdev(path.get_ref().clone()), path.span().start)
            }
            (Kind::Vfio, ..) => Err(self.mistake(
                begin,
                "a vfio device has either pci, its address, or device, its character device".to_owned(),
            )),
        }
    }

    fn check_name(&self, name: &str, at: usize) -> Result<(), Mistake> {
        if name.is_empty() || name.contains(char::is_control) {
            return Err(self.mistake(at, format!("{name:?} is not a name")));
        }
        Ok(())
    }

    fn unique(&mut self, what: Unique, at: usize) -> Result<(), Mistake> {
        if let Some(first) = self.used.get(&what) {
            return Err(self.mistake(at, format!("{what} is on line {first} already")));
        }
        self.used.insert(what, self.line(at));
        Ok(())
    }

    fn mistake(&self, at: usize, what: String) -> Mistake {
        Mistake {
            line: self.line(at),
            what,
        }
    }

    /// The line, from 1, of a byte of the text.
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests;
