//! What is said of a device that is not there, or cannot be had.

use std::os::unix::fs::symlink;

use super::*;

/// A machine's list of devices.
fn machine() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A device that `driver` has, with these files in `vfio-dev`.
fn device(machine: &tempfile::TempDir, address: &str, driver: Option<&str>, names: &[&str]) {
    let device = machine.path().join(address);
    fs::create_dir(&device).unwrap();
    if let Some(driver) = driver {
        symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
    }
    for name in names {
        fs::create_dir_all(device.join("vfio-dev").join(name)).unwrap();
    }
}

#[test]
fn a_device_is_found_by_its_address() {
    let machine = machine();
    device(&machine, "0000:01:00.0", Some("vfio-pci"), &["vfio7"]);
    let path = path_of_pci(machine.path(), "0000:01:00.0").unwrap();
    assert_eq!(path, Path::new("/dev/vfio/devices/vfio7"));
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let machine = machine();
    device(&machine, "0000:01:00.1", Some("nvme"), &[]);
    device(&machine, "0000:01:00.2", None, &[]);
    device(&machine, "0000:01:00.3", Some("vfio-pci"), &[]);
    let said = |address: &str| path_of_pci(machine.path(), address).unwrap_err().to_string();
    assert!(said("0000:01:00.0").contains("lspci -D"));
    let other_driver = said("0000:01:00.1");
    assert!(
        other_driver.contains("nvme") && other_driver.contains("driver_override"),
        "{other_driver}"
    );
    assert!(said("0000:01:00.2").contains("no driver"));
    assert!(said("0000:01:00.3").contains("CONFIG_VFIO_DEVICE_CDEV"));
}

#[test]
fn what_is_no_address_is_not_looked_for() {
    for text in [
        "",
        "01:00.0",
        "0000:01:00",
        "0000:01:00.8",
        "0000:01:0.00",
        "../../etc",
        "0000:01:00.0/..",
        "0000:01:00:0",
        "0000.01.00.0",
        "zzzz:01:00.0",
        "0000:01:00.0.0",
    ] {
        let error = path_of_pci(Path::new("/nonexistent"), text).unwrap_err();
        assert!(matches!(error, OpenError::BadAddress(_)), "{text:?}: {error}");
    }
    for text in ["0000:01:00.0", "10000:ff:1f.7"] {
        let error = path_of_pci(Path::new("/nonexistent"), text).unwrap_err();
        assert!(matches!(error, OpenError::NoDevice(_)), "{text:?}: {error}");
    }
}

#[test]
fn what_is_no_device_of_vfio_is_refused() {
    let iommufd = IommuFd::new_from_fd(File::open("/dev/null").unwrap());
    let said = |path: &str| bind(Path::new(path), &iommufd).unwrap_err();
    assert!(matches!(said("/dev/vfio/devices/none"), OpenError::NoFile(_)));
    assert!(matches!(said("/"), OpenError::NotADevice(_)));
    assert!(matches!(said("/proc/version"), OpenError::NotADevice(_)));
    assert!(
        matches!(said("/dev/null"), OpenError::NotADevice(_)),
        "{}",
        said("/dev/null")
    );
}

#[test]
fn a_kernel_that_is_too_old_is_named_whatever_it_lacks() {
    let path = Path::new("/dev/iommu");
    for errno in [Errno::NOENT, Errno::NODEV] {
        let said = OpenError::of_iommufd(path, errno.into()).to_string();
        assert!(
            said.contains("Linux 6.6") && said.contains("CONFIG_IOMMUFD"),
            "{said}"
        );
    }
    let said = OpenError::NoFile("/dev/vfio/devices/vfio0".into()).to_string();
    assert!(
        said.contains("6.6") && said.contains("CONFIG_VFIO_DEVICE_CDEV"),
        "{said}"
    );
}

#[test]
fn a_device_that_cannot_be_had_says_why() {
    let path = Path::new("/dev/vfio/devices/vfio0");
    let open = |errno: Errno| OpenError::of_open(path, errno.into()).to_string();
    assert!(open(Errno::ACCESS).contains("udev rule"));
    for errno in [Errno::NOENT, Errno::NODEV, Errno::NXIO] {
        assert!(open(errno).contains("there is no"), "{errno}");
    }
    let bind = |errno: Errno| OpenError::of_bind(path, errno.into()).to_string();
    for errno in [Errno::BUSY, Errno::INVAL] {
        let said = bind(errno);
        assert!(
            said.contains("in use") && said.contains("/dev/vfio/NUMBER"),
            "{said}"
        );
    }
    assert!(bind(Errno::PERM).contains("allow_unsafe_interrupts"));
    assert!(bind(Errno::NOTTY).contains("not a device of VFIO's"));
    for said in [open(Errno::MFILE), bind(Errno::NOMEM)] {
        assert!(said.contains("cannot") && said.contains("vfio0"), "{said}");
    }
}

#[test]
fn a_refusal_to_attach_says_why() {
    let path = Path::new("/dev/vfio/devices/vfio0");
    let said = |errno: Errno| OpenError::of_attach(path, IommuError::Attach(errno.into())).to_string();
    assert!(said(Errno::PERM).contains("allow_unsafe_interrupts"));
    assert!(said(Errno::BUSY).contains("in use"));
    assert!(said(Errno::INVAL).contains("intel_iommu=on"));
    assert!(said(Errno::NOTTY).contains("Linux 6.6"));
    let other = OpenError::of_attach(path, IommuError::Attach(Errno::NOMEM.into()));
    let other = format!("{:#}", anyhow::Error::new(other));
    assert!(
        other.contains("cannot be attached") && other.contains("memory"),
        "{other}"
    );
    let missing = OpenError::of_iommufd(Path::new("/dev/iommu"), io::ErrorKind::NotFound.into());
    assert!(missing.to_string().contains("modprobe iommufd"));
    let forbidden = OpenError::of_iommufd(Path::new("/dev/iommu"), io::ErrorKind::PermissionDenied.into());
    assert!(forbidden.to_string().contains("permission"));
}
