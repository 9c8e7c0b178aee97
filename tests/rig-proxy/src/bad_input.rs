//! What is said when a device cannot be served, and what is left whole.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pagetrail_rig_devices::{PAGE, equal};

use crate::guest::Guest;
use crate::served::{Served, vfio};
use crate::subject::Subject;

/// A user without privileges.
const NOBODY: u32 = 65534;
const ENOMEM: u32 = 12;

pub(crate) fn all(subject: &Subject) -> Result<()> {
    no_such_device(subject)?;
    no_permission(subject)?;
    in_use(subject)?;
    locked_memory(subject)
}

/// Fails unless the program ends with an error that has all of `words`.
pub(crate) fn says(command: &mut Command, words: &[&str]) -> Result<()> {
    let output = command.arg("--explain").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it succeeds: {said}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

fn pagetrail(subject: &Subject, source: &str) -> Command {
    let mut command = Command::new(&subject.pagetrail);
    command.args(["vfio", source]);
    command
}

fn no_such_device(subject: &Subject) -> Result<()> {
    let bad = |source: &str, words: &[&str]| {
        says(&mut pagetrail(subject, source), words).with_context(|| source.to_owned())
    };
    bad("--pci=0000:00:1e.7", &["there is no PCI device", "lspci -D"])?;
    bad("--pci=4.0", &["not a PCI address"])?;
    // The machine's host bridge, which no driver of VFIO's has.
    bad(
        "--pci=0000:00:00.0",
        &["not bound to a driver of VFIO's", "driver_override"],
    )?;
    bad("--device=/dev/vfio/devices/vfio99", &["there is no", "vfio-dev"])?;
    bad("--device=/dev/null", &["not a device of VFIO's"])?;
    bad("--device=/proc/version", &["not a device of VFIO's"])?;
    says(
        vfio(subject, &[]).arg("--iommufd=/dev/no-iommu"),
        &["there is no /dev/no-iommu", "modprobe iommufd"],
    )
}

fn no_permission(subject: &Subject) -> Result<()> {
    says(
        vfio(subject, &[]).uid(NOBODY).gid(NOBODY),
        &["no permission", "udev"],
    )
}

fn in_use(subject: &Subject) -> Result<()> {
    let served = Served::vfio(subject, &[])?;
    let check = || {
        let mut guest = Guest::new(subject, &served.sockets)?;
        says(&mut vfio(subject, &[]), &["in use"])?;
        guest.start_log()?;
        guest.write_pages(&[1])?;
        equal("the client that has it", &guest.report_all()?, &[1])
    };
    served.explain(check())
}

/// A limit of locked memory holds for users without privileges, who can serve a device as soon as its files are theirs.
fn locked_memory(subject: &Subject) -> Result<()> {
    let files = Opened::to_everybody(subject)?;
    let mut command = Command::new("/bin/sh");
    command.uid(NOBODY).gid(NOBODY);
    let script = format!(
        "ulimit -l 1024; exec {} vfio --pci={} \"$@\"",
        subject.pagetrail.display(),
        subject.address
    );
    command.args(["-c", &script, "sh"]);
    let served = Served::by(command)?;
    let check = || {
        let refused = Guest::new(subject, &served.sockets).err();
        let refused = refused.context("more memory is locked than may be")?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains(&ENOMEM.to_string()), "{refused}");
        let log = served.server.log();
        ensure!(log.contains("ulimit -l"), "the log does not name the limit");
        // What may be locked can be, by the next client.
        let mut guest = Guest::with(subject, &served.sockets, &[(0, 64 * PAGE)])?;
        guest.start_log()?;
        guest.write_pages(&[1])?;
        equal("the small VM", &guest.report(0, 64 * PAGE)?, &[1])
    };
    let result = served.explain(check());
    drop(files);
    result
}

/// The device's file and the iommufd, open to everybody until this is dropped.
struct Opened(Vec<(PathBuf, Permissions)>);

impl Opened {
    fn to_everybody(subject: &Subject) -> Result<Self> {
        let folder = format!("/sys/bus/pci/devices/{}/vfio-dev", subject.address);
        let name = fs::read_dir(&folder)?.next().context("no device of VFIO's")??;
        let device = Path::new("/dev/vfio/devices").join(name.file_name());
        let mut opened = Self(Vec::new());
        for path in [device, PathBuf::from("/dev/iommu")] {
            let before = fs::metadata(&path)?.permissions();
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            opened.0.push((path, before));
        }
        Ok(opened)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        for (path, before) in self.0.drain(..) {
            if let Err(error) = fs::set_permissions(&path, before) {
                println!("# {} stays open to everybody: {error}", path.display());
            }
        }
    }
}
